package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
)

func joinCommand() *command {
	return &command{
		name:    "join",
		section: sectionTake,
		summary: "be a member of a group and print what happens in it",
		about: "Becomes a member of the group until it is interrupted (INT or TERM), and prints an event a line: who joins and leaves, who leads, " +
			"which share of the work is this member's. With -o json each line is an object; its fields are a contract, in docs/events.md.\n\n" +
			"With --items the lines of FILE are shared: each line belongs to exactly one member, the owner of its text (empty lines are skipped), " +
			"and `assigned` shows this member's. A share is held until `revoked`, or until its lease runs out.\n\n" +
			"With --buckets the work is cut into so many fixed parts, and when members come and go only those that change hands are let go of: `revoked` names them then, and the rest is held on.\n\n" +
			"An --id that another process has is waited for, until that one leaves or its lease runs out.\n\n" +
			"With no server, credentials or context given, the first member on this host starts a NATS server that the others use too.",
		args: []argSpec{{name: "GROUP"}},
		flags: append([]flagSpec{
			idFlag(),
			metaFlag(),
			{name: "items", value: "FILE", usage: "file whose lines are shared among the members"},
			{name: "buckets", kind: kindInt, value: "N", usage: "cut the work into N fixed buckets, and move only those that have to change hands; give all the same (default: as the group has it)"},
			{name: "hash", value: "H", choices: []string{partition.HashXXH64, partition.HashNATS}, usage: "with --buckets: how lines and keys go to them; nats as the server's own {{partition(N,...)}} (default: xxh64)"},
			{name: "weight", kind: kindInt, value: "N", usage: "this member's part of the buckets beside the others' (default: 1)"},
			{name: "zone", value: "ZONE", usage: "where this member runs: buckets are spread over zones"},
			minSizeFlag(),
			{name: "observer", kind: kindBool, usage: "see everything, count nowhere: never lead, no share, no vote"},
			voteFlag(),
			{name: "on-ballot", value: "CMD", usage: "have a vote, and answer each ballot by a shell command: the event line on its standard input, exit code 0 yes, 1 no, else abstain; its first line is the reason"},
			{name: "on-action", value: "CMD", usage: "shell command that does what was agreed on, at its instant: exit code 0 done, else failed (default: do nothing, and report it as done)"},
			{name: "on-message", value: "CMD", usage: "shell command for each message: the event line on its standard input; what it prints is the answer"},
		}, monitorFlags()...),
		needs:  needServer,
		runsOn: true,
		json:   []shape{{note: "an event a line: docs/events.md"}},
		examples: []example{
			{"quorate join workers", "on one host: nothing else is needed; start it in several terminals"},
			{"quorate join workers --id web-1 --meta zone=a --items hosts.txt", "share the lines of hosts.txt"},
			{"quorate join workers --buckets 64 --items hosts.txt", "the same, and a member that comes or goes moves few of the lines"},
			{"quorate join valves --on-ballot 'test -e ready' --on-action ./open-valve", "vote, and act: 'quorate vote valves open --kind consensus --at +10s'"},
			{"quorate join workers --on-message 'jq -r .data >&2; uptime'", "answer messages: 'quorate send workers status --ask'"},
			{"quorate join workers -o json >> events.jsonl", "event lines for programs"},
		},
		exits: []exitSpec{{ExitDone, "interrupted, and left the group"}, {ExitFailed, "failed; also: evicted, or another process has taken the id"}},
		run:   runJoin,
	}
}

// idFlag, metaFlag and minSizeFlag are of all commands that make a member.
func idFlag() flagSpec {
	return flagSpec{name: "id", value: "ID", usage: "the member's id (default: the host's name and a random part)"}
}

func metaFlag() flagSpec {
	return flagSpec{name: "meta", kind: kindList, value: "K=V", usage: "what others can read about the member"}
}

func minSizeFlag() flagSpec {
	return flagSpec{name: "min-size", kind: kindInt, value: "N", usage: "how many members the group needs to have a leader; give all the same (default: no minimum)"}
}

func runJoin(ctx context.Context, c *call) error {
	m, err := c.newMember()
	if err != nil {
		return err
	}
	stop, err := c.monitor(ctx, false)
	if err != nil {
		return err
	}
	defer stop()
	return m.run(ctx)
}

// A member is one `join`.
type member struct {
	c      *call
	group  string
	cfg    coord.Config
	items  []string // nil without --items
	share  partition.Config
	works  bool // it will have a share, and says so when it joins
	j      *journal
	g      *coord.Group
	tasks  sync.WaitGroup
	asking chan struct{}           // has a place for each command of --on-ballot that runs
	fail   context.CancelCauseFunc // ends the command with an error
}

// ownID is --id, or an id of the host's name and a random part.
func (c *call) ownID() (string, error) {
	if c.isSet("id") {
		return c.str("id"), wire.CheckID(c.str("id"))
	}
	host, err := os.Hostname()
	if err != nil {
		host = "" // a random id will do
	}
	return leader.GenerateID(host), nil
}

// plainMember is a member by the group and the flags that all commands that make a member have.
func (c *call) plainMember() (*member, error) {
	m := &member{c: c, group: c.arg(0), asking: make(chan struct{}, ballotsAtOnce), cfg: coord.Config{MinSize: c.integer("min-size")}}
	if err := wire.CheckGroup(m.group); err != nil {
		return nil, err
	}
	var err error
	if m.cfg.ID, err = c.ownID(); err != nil {
		return nil, err
	}
	if m.cfg.MinSize > settle.MaxIDs {
		return nil, usageError("--min-size %d: a group has at most %d members", m.cfg.MinSize, settle.MaxIDs)
	}
	size := 0
	for _, kv := range c.list("meta") {
		k, v, ok := strings.Cut(kv, "=")
		if _, twice := m.cfg.Meta[k]; !ok || k == "" || twice {
			why := "write it KEY=VALUE"
			if twice {
				why = "the key is given twice"
			}
			return nil, usageError("--meta %q: %s", kv, why)
		}
		if m.cfg.Meta == nil {
			m.cfg.Meta = map[string]string{}
		}
		m.cfg.Meta[k] = v
		size += len(k) + len(v)
	}
	if size > wire.MaxMeta {
		return nil, usageError("--meta: %d bytes, at most %d are allowed", size, wire.MaxMeta)
	}
	return m, nil
}

// newMember reads arguments, flags and files: whatever is wrong with them is said before anything is connected.
func (c *call) newMember() (*member, error) {
	m, err := c.plainMember()
	if err != nil {
		return nil, err
	}
	m.cfg.Observer = c.bool("observer")
	m.share = partition.Config{Buckets: c.integer("buckets"), Hash: c.str("hash"), Weight: c.integer("weight"), Zone: c.str("zone")}
	switch {
	case c.isSet("weight") && m.share.Weight <= 0:
		return nil, usageError("--weight %d: a member has a weight of 1 at least", m.share.Weight)
	case m.share.Hash != "" && m.share.Buckets == 0:
		return nil, usageError("--hash: of what? give --buckets too")
	case m.share.Buckets == 0 && c.isSet("buckets"):
		m.share.Buckets = -1 // none, also where others have asked for some
	}
	if err := m.share.Check(c.g.lease); err != nil {
		return nil, usageError("join: %s", err)
	}
	for _, f := range []string{"items", "buckets", "hash", "weight", "zone", "vote", "on-ballot", "on-action"} {
		if m.cfg.Observer && c.isSet(f) {
			return nil, usageError("--observer and --%s: an observer has no share and no vote: leave one out", f)
		}
	}
	switch {
	case c.isSet("vote") && c.isSet("on-ballot"):
		return nil, usageError("--vote and --on-ballot: both answer ballots: leave one out")
	case c.isSet("on-action") && !c.isSet("vote") && !c.isSet("on-ballot"):
		return nil, usageError("--on-action: only who has a vote acts: give --vote or --on-ballot too")
	}
	if c.isSet("items") {
		items, err := readItems("--items", c.str("items"))
		if err != nil {
			return nil, err
		}
		m.items = items
	}
	return m, nil
}

// run is the whole life of the member.
func (m *member) run(ctx context.Context) error {
	c := m.c
	w := c.events(m.group, "", m.cfg.ID)
	m.j = newJournal(w, quorate.Derive(c.g.lease))
	m.j.inc = func() (uint64, bool) { return 0, false } // no member yet

	// What happens to the connection while the member is not one yet shows in what it waits for.
	joined := make(chan struct{})
	during := func(e func() event) {
		select {
		case <-joined:
			m.j.emit(e())
		default:
		}
	}
	s, err := c.session(ctx,
		nats.DisconnectErrHandler(func(*nats.Conn, error) { during(func() event { return &disconnectedEvent{} }) }),
		nats.ReconnectHandler(func(*nats.Conn) { during(func() event { return &reconnectedEvent{} }) }))
	if err != nil {
		return err
	}
	m.works = !m.cfg.Observer
	m.g, err = m.join(ctx, s)
	if err != nil {
		s.Close()
		if ctx.Err() != nil {
			return nil // interrupted while it waited: nothing is left of it
		}
		return c.failed(ctx, err)
	}
	h := m.g.Inner()
	m.j.inc = func() (uint64, bool) { return h.Place().Incarnation, m.g.Live() }
	m.j.member()
	close(joined)
	c.mon.becomes(isMember(m.g))
	err = m.live(ctx, s)
	return s.end(ctx, err)
}

// isMember is ready while the membership is granted.
func isMember(g *coord.Group) func() error {
	return func() error {
		if cause := context.Cause(g.Context()); cause != nil {
			return cause
		}
		if !g.Live() {
			return errors.New("its membership is not granted: no leader answers")
		}
		return nil
	}
}

// join joins, and says after a second what it waits for. It waits until it is interrupted.
func (m *member) join(ctx context.Context, s *session) (*coord.Group, error) {
	done := make(chan struct{})
	defer m.tasks.Wait()
	defer close(done)
	m.tasks.Go(func() {
		for wait := time.Second; ; wait *= 4 {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-time.After(wait):
				m.c.note("%s: waiting: %s", m.c.cmd.name, m.waitsFor(ctx, s))
			}
		}
	})
	// Who works does so from the first: else 'quorate wait --settled' would find a member that wants no share, for a moment.
	return coord.JoinWith(ctx, s.ns, m.group, m.cfg, coord.Extra{Works: m.works})
}

// waitsFor is why the member is not one yet, as the records tell.
func (m *member) waitsFor(ctx context.Context, s *session) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	store := s.ns.Inner().Store
	lead, err := store.Read(ctx, wire.LeaderKey(m.group))
	if err != nil {
		return fmt.Sprintf("the NATS server does not answer (%s)", strings.TrimPrefix(err.Error(), "kv: "))
	}
	if l := leader.StateOf(lead); l.Holder != "" {
		var rec wire.Member
		if e, err := store.Read(ctx, wire.MemberKey(m.group, m.cfg.ID)); err == nil && e.Op == kv.Record && wire.Decode(e.Value, &rec) == nil &&
			(rec.PID != os.Getpid() || rec.Host != s.ns.Inner().Host) {
			return fmt.Sprintf("%q is a member already, process %d on %s: until it leaves, or its lease runs out", m.cfg.ID, rec.PID, rec.Host)
		}
		return fmt.Sprintf("the leader of group %q, %s, does not answer: until it does, or its lease of %s runs out", m.group, l.Holder, l.Lease)
	}
	return fmt.Sprintf("group %q has no leader yet", m.group)
}

// live is the life of the member from its join to its end.
func (m *member) live(ctx context.Context, s *session) error {
	c, g := m.c, m.g
	running, fail := context.WithCancelCause(context.Background())
	defer fail(nil)
	m.fail = fail
	stop, err := m.watchRecords(s)
	if err != nil {
		fail(err)
	} else {
		defer stop()
	}
	if err := m.messages(); err != nil {
		fail(m.c.failed(ctx, err))
	}
	m.tasks.Go(func() { m.watchMembers(running) })
	if !m.cfg.Observer {
		m.tasks.Go(func() { m.lead(running) })
		m.work(running)
	}
	m.votes(running)

	var failed error
	select {
	case <-ctx.Done():
	case <-g.Context().Done():
	case <-running.Done():
		failed = context.Cause(running)
	case <-m.j.broken:
		failed = m.j.err
	}

	// Leaving ends the work of the share and of the leadership: their lines come before anything is acknowledged or released.
	bounded, cancel := context.WithTimeout(context.Background(), max(c.g.timeout, 2*c.g.lease))
	defer cancel()
	c.mon.becomes(func() error { return errors.New("it is leaving") })
	lerr := g.Leave(bounded)
	fail(nil)
	m.tasks.Wait()

	cause := context.Cause(g.Context())
	switch {
	case failed != nil:
		m.j.last(&leftEvent{Member: m.cfg.ID, Reason: "failed"})
		return failed
	case cause == nil || errors.Is(cause, quorate.ErrLeft):
		m.j.last(&leftEvent{Member: m.cfg.ID, Reason: "left"})
		if lerr != nil {
			c.note("join: left group %q without an answer: the others wait until the lease runs out", m.group)
		}
		return m.j.err
	case errors.Is(cause, quorate.ErrEvicted):
		m.j.last(&leftEvent{Member: m.cfg.ID, Reason: "evicted"})
		return failure(ExitFailed, "join: %q was evicted from group %q", m.cfg.ID, m.group)
	case errors.Is(cause, quorate.ErrIDInUse):
		m.j.last(&leftEvent{Member: m.cfg.ID, Reason: "id-in-use"})
		return failure(ExitFailed, "join: another process is %q in group %q now: give each its own --id", m.cfg.ID, m.group)
	}
	m.j.last(&leftEvent{Member: m.cfg.ID, Reason: "failed"})
	return failure(ExitFailed, "join: group %q: %w", m.group, cause)
}

// lead tells of the member's own terms. The leadership is released once the callback has returned: the line is out then.
func (m *member) lead(ctx context.Context) {
	_ = m.g.Lead(ctx, func(ctx context.Context, t *leader.Term) error { // its error is the end of the membership: see live
		if m.j.elect(t) {
			<-ctx.Done()
			cause := context.Cause(ctx)
			if gone := context.Cause(m.g.Context()); gone != nil && t.Live() {
				cause = gone // evicted, not resigned
			}
			m.j.lose(t, cause)
		}
		<-ctx.Done() // a term that was over before it could be told
		return nil
	})
}

// work tells of the member's shares. A revoke is acknowledged when the next value is asked for: the line is out then.
func (m *member) work(ctx context.Context) {
	p, err := partition.Join(ctx, m.g, m.share)
	if err != nil {
		m.fail(m.c.failed(ctx, err))
		return
	}
	m.tasks.Go(func() {
		var now *partition.Assignment // announced
		for h, err := range p.WatchBuckets(ctx) {
			if err != nil {
				return // the membership has ended
			}
			if h.Assignment == nil {
				now = nil
				m.j.revoke(h.Lost, h.Cause)
			} else if h.Assignment != now {
				var own []string
				if m.items != nil {
					own = shareOf(m.items, h.Assignment.Owns)
				}
				if m.j.assign(h.Assignment, h.Buckets, own) {
					now = h.Assignment
				}
			}
		}
	})
}

// watchMembers tells who comes and goes, those who are there already first.
func (m *member) watchMembers(ctx context.Context) {
	lease := m.c.g.lease
	few := false
	for v, err := range m.g.Watch(ctx) {
		if err != nil {
			return // the membership has ended
		}
		// Nothing happens in a group below its minimum size, so no event would tell why.
		if was := few; !v.Stale {
			few = v.Leader.Holder == "" && v.Leader.Keeper != ""
			if few && !was {
				m.c.note("join: group %q has fewer members than its minimum size: nobody leads it until more have joined", m.group)
			}
		}
		for _, d := range v.Left {
			if d.Member.ID != m.cfg.ID {
				m.j.emit(&memberLeftEvent{Member: d.Member.ID, Reason: d.Reason})
			}
		}
		for _, n := range v.Joined {
			if n.ID != m.cfg.ID {
				m.j.emit(&memberJoinedEvent{Member: n.ID, Meta: n.Meta})
				continue
			}
			// A new incarnation of ours: it is a member once that is granted.
			m.tasks.Go(func() {
				for ctx.Err() == nil && m.g.Context().Err() == nil {
					if inc, live := m.j.inc(); live && inc >= n.Incarnation {
						m.j.member()
						return
					}
					select {
					case <-ctx.Done():
					case <-time.After(lease / 12):
					}
				}
			})
		}
	}
}

// watchRecords tells of the other leaders and of the generations, as the records show them.
func (m *member) watchRecords(s *session) (stop func(), err error) {
	store := s.ns.Inner().Store
	leaders := leaderWatch{self: m.cfg.ID, emit: m.j.emit}
	lead, err := store.Watch(wire.LeaderKey(m.group), kv.WatchOptions{}, leaders.take)
	if err != nil {
		return nil, m.c.failed(context.Background(), err)
	}
	// From now on: what was settled before is of no meaning to a newcomer.
	phases := phaseWatch{emit: m.j.emit}
	settled, err := store.Watch(wire.SettledKey(m.group), kv.WatchOptions{NoSnapshot: true}, phases.take)
	if err != nil {
		lead.Stop()
		return nil, m.c.failed(context.Background(), err)
	}
	return func() { lead.Stop(); settled.Stop() }, nil
}

// leaderWatch turns what stands under a leader's key into events, for every leader but self, whose terms tell of themselves.
type leaderWatch struct {
	self string
	emit func(event)
	now  leader.State // announced
}

func (w *leaderWatch) take(e kv.Event) {
	s := leader.StateOf(e.Entry)
	if w.self != "" && s.Holder == w.self {
		s = leader.State{}
	}
	if s.Holder == w.now.Holder && s.Token == w.now.Token {
		return
	}
	if w.now.Holder != "" {
		reason := "expired" // another has taken it over, or the record is gone by its age
		var rec wire.Leader
		switch {
		case e.Op == kv.Marker && (e.Reason == wire.ReasonResign || e.Reason == wire.ReasonStep):
			reason = e.Reason
		case e.Op == kv.Marker && e.Reason == "":
			reason = "lost" // a foreign hand
		case e.Op == kv.Record && wire.Decode(e.Value, &rec) == nil && rec.Quorate != nil && !*rec.Quorate:
			reason = "not-quorate"
		}
		w.emit(&leaderLostEvent{Leader: w.now.Holder, Token: w.now.Token, Reason: reason})
	}
	w.now = s
	if s.Holder != "" {
		w.emit(&leaderElectedEvent{Leader: s.Holder, Token: s.Token})
	}
}

// phaseWatch turns the settled record into events.
type phaseWatch struct {
	emit     func(event)
	shares   bool // also which share each member gets
	settling uint64
	settled  uint64
}

func (w *phaseWatch) take(e kv.Event) {
	rec, gen := settledOf(e.Entry)
	switch {
	case rec == nil:
	case rec.Phase == wire.Settling && gen > w.settling:
		w.settling = gen
		w.emit(&settlingEvent{Generation: gen})
	case rec.Phase == wire.SettledDone && gen > w.settled:
		w.settled = gen
		w.emit(&settledEvent{Generation: gen, Total: len(rec.Places)})
		if w.shares {
			for _, e := range sharesOf(rec) {
				w.emit(e)
			}
		}
	}
}

// sharesOf are the shares of a generation, by index.
func sharesOf(rec *wire.Settled) []*assignedEvent {
	all := make([]*assignedEvent, len(rec.Places))
	timeout := wire.MS(rec.MemberTimeoutMS)
	for i, p := range rec.Places {
		all[i] = &assignedEvent{Member: p.ID, Index: i, Total: len(rec.Places), Generation: rec.Generation, LeaseMS: wire.ToMS(timeout - timeout/10), Of: rec.Buckets}
		if rec.Buckets > 0 {
			all[i].Buckets = &[]int{}
		}
	}
	for b, o := range rec.Owners {
		if o >= 0 {
			*all[o].Buckets = append(*all[o].Buckets, b)
			all[o].Tokens = append(all[o].Tokens, rec.Tokens[b])
		}
	}
	return all
}
