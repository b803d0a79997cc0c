package dashboard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

// Bounds of what is kept, so that no namespace, however large or hostile, can fill the memory.
const (
	maxGroups   = 1000             // groups that are followed; further ones are counted
	maxEvents   = 200              // lines of each group's time line
	maxVerdicts = 100              // of each group
	maxOpen     = 50               // ballots of each group that are under way
	maxColours  = 4096             // ids of each group whose colour is remembered
	remembered  = time.Hour        // how long what has happened is shown
	slowest     = 10 * time.Second // between two questions to a leader
)

// A hub is all that the page knows: one watch of the bucket for each kind of record, shared by all groups and all viewers. While somebody looks at
// a group its leader is asked, too, whom it hears.
//
// Every input takes the lock, changes what is known, and wakes the viewers; nothing is sent or read from NATS under it.
type hub struct {
	log     *slog.Logger
	only    []string // groups to follow; none: all
	started time.Time

	mu      sync.Mutex
	ns      *quorate.Namespace // nil until the namespace is there
	link    link
	groups  map[string]*group
	more    map[string]bool // groups beyond maxGroups
	synced  bool            // everything that was there at the start has been told
	version uint64          // grows with each change
	changed chan struct{}   // closed at the next change
	viewers map[string]int  // by group; "" is the list of groups alone
	looked  chan struct{}   // wakes the loop: somebody has come to look, or there is news
}

// link is the state of what lies between this process and the records.
type link struct {
	state string    // below
	since time.Time // when it began
	text  string    // more about it, for people
	heard uint64    // messages when last looked
	at    time.Time // when there was one last
}

// States of a link.
const (
	linkWaiting = "waiting" // the namespace has no bucket yet
	linkLive    = "live"
	linkAway    = "away"   // not connected
	linkSilent  = "silent" // connected, but nothing is heard
	linkLost    = "lost"   // the bucket is gone, or is another one
)

func newHub(log *slog.Logger, only []string) *hub {
	now := time.Now()
	return &hub{log: log, only: only, started: now, link: link{state: linkWaiting, since: now}, groups: map[string]*group{}, more: map[string]bool{},
		changed: make(chan struct{}), viewers: map[string]int{}, looked: make(chan struct{}, 1)}
}

// touch says that something that is shown has changed. The lock is held.
func (h *hub) touch() {
	h.version++
	close(h.changed)
	h.changed = make(chan struct{})
}

// wake has the loop look soon.
func (h *hub) wake() {
	select {
	case h.looked <- struct{}{}:
	default:
	}
}

// look counts a viewer of a group; the returned function ends it.
func (h *hub) look(group string) (end func()) {
	h.mu.Lock()
	h.viewers[group]++
	h.mu.Unlock()
	h.wake()
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.viewers[group]--; h.viewers[group] == 0 {
			delete(h.viewers, group)
		}
	})
}

// set changes the state of the link. The lock is held.
func (h *hub) set(state, text string, since time.Time) {
	if h.link.state == state && h.link.text == text {
		return
	}
	if h.link.state != state {
		h.link.since = since
	}
	h.link.state, h.link.text = state, text
	h.touch()
}

// patterns are the keys that are watched.
func (h *hub) patterns() []string {
	if len(h.only) == 0 {
		return []string{wire.LeaderKeys, wire.MemberKeys, wire.SettledKey("*"), wire.VerdictPrefix("*") + "*", wire.HistoryPrefix("*") + "*"}
	}
	var l []string
	for _, g := range h.only {
		l = append(l, wire.LeaderKey(g), wire.MemberPrefix(g)+"*", wire.SettledKey(g), wire.VerdictPrefix(g)+"*", wire.HistoryPrefix(g)+"*")
	}
	return l
}

// follow hears the records of a namespace until ctx ends, or its connection is closed for good.
func (h *hub) follow(ctx context.Context, ns *quorate.Namespace) error {
	in := ns.Inner()
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	h.mu.Lock()
	h.ns = ns
	h.link.at = time.Now()
	h.set(linkLive, "", time.Now())
	h.mu.Unlock()
	defer h.forget()

	// With nobody watching a look at the bucket for each kind of record in two leases is all that is asked of NATS.
	opts := kv.WatchOptions{Reconcile: max(2*in.Lease, 2*time.Second)}
	var synced []<-chan struct{}
	for _, p := range h.patterns() {
		w, err := in.Store.Watch(p, opts, func(e kv.Event) { h.hear(e.Entry, time.Now()) })
		if err != nil {
			return fmt.Errorf("dashboard: %w", err)
		}
		defer w.Stop()
		synced = append(synced, w.Synced())
	}
	stop, err := h.listen(in)
	if err != nil {
		return err
	}
	defer stop()
	tasks.Go(func() {
		for _, c := range synced {
			select {
			case <-c:
			case <-ctx.Done():
				return
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.baseline(time.Now())
	})
	tasks.Go(func() { h.attend(ctx, in.Store) })
	polls := map[string]bool{}
	for {
		now := time.Now()
		for _, g := range h.tick(now) {
			if !polls[g.name] {
				polls[g.name] = true
				tasks.Go(func() { h.ask(ctx, g) })
			}
		}
		clear(polls)
		pace := time.NewTimer(h.pace(in.Lease))
		select {
		case <-ctx.Done():
			pace.Stop()
			return nil
		case <-in.Store.ConnClosed():
			pace.Stop()
			return fmt.Errorf("dashboard: %w", quorate.ErrConnClosed)
		case <-h.looked: // not for each of a thousand members that join at once
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		case <-pace.C:
		}
		pace.Stop()
	}
}

// pace is how long until the next tick: what changes with time alone is looked at more often while somebody watches.
func (h *hub) pace(lease time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.viewers) > 0 {
		return min(lease/6, 250*time.Millisecond)
	}
	return max(lease, time.Second)
}

// forget closes the clients of all groups: the namespace ends.
func (h *hub) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ns = nil
	for _, g := range h.groups {
		if g.client != nil {
			g.client.Close()
			g.client = nil
		}
	}
}

// listen hears what is said and not stored: ballots that are under way, and reports about actions.
func (h *hub) listen(in *inner.Namespace) (stop func(), err error) {
	nc := in.Store.Conn()
	var subs []*nats.Subscription
	stop = func() {
		for _, s := range subs {
			_ = s.Unsubscribe() // a closed connection has ended it already
		}
	}
	groups := h.only
	if len(groups) == 0 {
		groups = []string{"*"}
	}
	for _, g := range groups {
		for rest, fn := range map[string]func(string, []byte, time.Time){wire.SubBallot: h.ballot, wire.SubReport: h.report} {
			sub, err := nc.Subscribe(wire.GroupSubject(in.Name, g, rest), func(m *nats.Msg) {
				if name, ok := groupOfSubject(in.Name, m.Subject, rest); ok && len(m.Data) <= wire.MaxRecord {
					fn(name, m.Data, time.Now())
				}
			})
			if err != nil {
				stop()
				return nil, fmt.Errorf("dashboard: %w", err)
			}
			subs = append(subs, sub)
		}
	}
	return stop, nil
}

// groupOfSubject is the group of a subject of a namespace.
func groupOfSubject(namespace, subject, rest string) (string, bool) {
	s, ok := strings.CutPrefix(subject, wire.GroupSubject(namespace, "", "")[:len("quorate.")+len(namespace)+len(".g.")])
	if !ok {
		return "", false
	}
	s, ok = strings.CutSuffix(s, "."+rest)
	return s, ok && wire.CheckGroup(s) == nil
}

// attend waits for a loss of the bucket, and attaches to the one that is made in its place. It makes none: that is for who takes part.
func (h *hub) attend(ctx context.Context, store *kv.Store) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-store.Lost():
		}
		h.mu.Lock()
		h.set(linkLost, "", time.Now())
		h.mu.Unlock()
		for {
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := store.Reattach(try)
			cancel()
			if err == nil || ctx.Err() != nil {
				break
			}
			h.mu.Lock()
			h.set(linkLost, cause(err), time.Now())
			h.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
		if ctx.Err() != nil {
			return
		}
		h.mu.Lock()
		h.link.at = time.Now()
		h.set(linkLive, "", time.Now())
		h.mu.Unlock()
	}
}

// cause is an error for people who look at the page: what counts of it.
func cause(err error) string {
	for _, e := range []error{quorate.ErrBucketMissing, quorate.ErrBucket, quorate.ErrPermission, quorate.ErrNoJetStream} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return ""
}

// hear takes what stands under a key.
func (h *hub) hear(e kv.Entry, now time.Time) {
	kind, rest, _ := strings.Cut(e.Key, ".")
	name, rest, _ := strings.Cut(rest, ".")
	if wire.CheckGroup(name) != nil {
		return // a foreign hand's
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.group(name, e.Op == kv.Record)
	if g == nil {
		return
	}
	if g.hear(kind, rest, e, now) {
		g.version++
		h.touch()
	}
	if g.dirty {
		h.wake()
	}
}

// group is the group of that name, made if there is room for it. The lock is held.
func (h *hub) group(name string, make bool) *group {
	g := h.groups[name]
	switch {
	case g != nil || !make || h.ns == nil:
		return g
	case len(h.groups) >= maxGroups:
		if len(h.more) < maxGroups {
			h.more[name] = true
		}
		return nil
	}
	in := h.ns.Inner()
	g = newGroup(name, in.Timings.MemberTimeout, in.Lease, h.started)
	g.told = h.synced
	c, err := coord.Open(context.Background(), h.ns, name)
	if err != nil {
		return nil // the namespace is closed
	}
	g.client = c
	h.groups[name] = g
	h.touch()
	return g
}

// baseline says that what is known now was there at the start: from here on changes are told. The lock is held.
func (h *hub) baseline(now time.Time) {
	h.synced = true
	for _, g := range h.groups {
		g.settleView(false, now)
		g.told = true
	}
	h.touch()
}

// tick looks at what changes with time alone, and returns the groups whose leaders are to be asked now.
func (h *hub) tick(now time.Time) (ask []*group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listenToLink(now)
	stale := h.link.state != linkLive
	for _, name := range slices.Sorted(maps.Keys(h.groups)) {
		g := h.groups[name]
		if g.tick(stale, now) {
			g.version++
			h.touch()
		}
		if g.empty(now) {
			g.client.Close()
			delete(h.groups, name)
			h.touch()
			continue
		}
		if h.viewers[name] > 0 && !stale && !g.asking && !now.Before(g.askAt) {
			g.asking = true
			ask = append(ask, g)
		}
	}
	return ask
}

// listenToLink tells whether what is known can be up to date. A connection that lets nothing through is noticed by pings minutes later; but the
// watches' own looks have answers. The lock is held.
func (h *hub) listenToLink(now time.Time) {
	if h.ns == nil || h.link.state == linkLost || h.link.state == linkWaiting {
		return
	}
	in := h.ns.Inner()
	nc := in.Store.Conn()
	if n := nc.Stats().InMsgs; n != h.link.heard {
		h.link.heard, h.link.at = n, now
	}
	switch {
	case !nc.IsConnected():
		h.set(linkAway, "", h.link.at)
	case now.Sub(h.link.at) > 2*max(2*in.Lease, 2*time.Second):
		h.set(linkSilent, "", h.link.at)
	default:
		h.set(linkLive, "", now)
	}
}

// ask asks the leader of a group whom it hears.
func (h *hub) ask(ctx context.Context, g *group) {
	h.mu.Lock()
	c := g.client
	h.mu.Unlock()
	if c == nil {
		return
	}
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, slowest)
	r, err := c.Roster(bounded)
	cancel()
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	// A large group's answer costs its leader more: it is asked at most a twentieth of the time.
	g.asking, g.askAt = false, now.Add(min(max(time.Second, 20*now.Sub(began)), slowest))
	if err != nil {
		return // the link tells
	}
	if g.rosterIs(r, now) {
		g.version++
		h.touch()
	}
}

// ballot hears of a ballot that is under way.
func (h *hub) ballot(name string, data []byte, now time.Time) {
	var b wire.Ballot
	if wire.Decode(data, &b) != nil || wire.CheckBallot(b.Ballot) != nil || len(b.Topic) > wire.MaxTopic || b.Topic == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.group(name, false); g != nil && g.opened(b, now) {
		g.version++
		h.touch()
	}
}

// report hears of a member's part in an action.
func (h *hub) report(name string, data []byte, now time.Time) {
	var r wire.Report
	if len(data) > 4096 || wire.Decode(data, &r) != nil || wire.CheckBallot(r.Ballot) != nil || wire.CheckID(r.ID) != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.group(name, false); g != nil && g.reported(r, now) {
		g.version++
		h.touch()
	}
}
