package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/internal/dashboard"
	"github.com/quorate/quorate/internal/eventcheck"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/vote"
)

const (
	demoGroup   = "demo"
	demoLease   = time.Second      // a second, so that a crash is over soon; --lease gives another
	demoLongest = 3 * time.Second  // with a longer lease it would not end within demoTime
	demoTime    = 30 * time.Second // the demo ends by itself within this
	demoFewest  = 3                // one hands over, one is killed, one is left
	demoMost    = 30
)

// demoItems are shared when no file is given.
const demoItems = "alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec " +
	"romeo sierra tango uniform victor whiskey xray yankee zulu"

func demoCommand() *command {
	return &command{
		name:    "demo",
		section: sectionOther,
		summary: "see all of it at work, in this terminal",
		about: "Starts a NATS server in this process and members in processes of their own, and shows an election, each member's share of a list, " +
			"a vote, an action at one instant, and a hand-over when the leader leaves. Then it kills the leader's process and shows the fail-over. All times are measured " +
			"in this very run, and what is shown is checked: the exit code is not 0 if anything is wrong.\n\n" +
			"It needs nothing but this program, listens on loopback only, keeps its data in a temporary directory, and ends by itself within 30 s. " +
			"It uses a lease of 1 s, so that a crash is over soon; --lease gives another.",
		flags: []flagSpec{
			{name: "members", kind: kindInt, value: "N", def: "5", usage: "how many member processes"},
			{name: "items", value: "FILE", usage: "file whose lines are shared among the members"},
			{name: "web", kind: kindBool, usage: "serve the live page of `quorate web` too, for as long as the demo lasts"},
		},
		json: []shape{{of: demoResult{}}},
		examples: []example{
			{"quorate demo", "five members share 26 words"},
			{"quorate demo --members 10 --items hosts.txt", "ten members share the lines of a file"},
			{"quorate demo --web", "look at it in a browser; the demo then takes its 30 s"},
			{"quorate demo -j", "what was measured, as one JSON object"},
		},
		exits: []exitSpec{{ExitFailed, "something shown is not what was promised"}},
		run:   runDemo,
	}
}

// demoResult is what was measured, as `demo -o json` shows it. Times are in microseconds, by the lines of the members' events.
type demoResult struct {
	Members   int    `json:"members" doc:"how many took part"`
	Items     int    `json:"items" doc:"how many lines were shared"`
	LeaseMS   int64  `json:"lease_ms" doc:"that it ran with"`
	ServerUS  int64  `json:"server_us" doc:"start of the NATS server until it can be used"`
	JoinedUS  int64  `json:"joined_us" doc:"start of the first process until all are members"`
	ElectedUS int64  `json:"elected_us" doc:"start of the first process until one leads"`
	SharedUS  int64  `json:"shared_us" doc:"last one joined until all have their shares: settling time included"`
	VoteUS    int64  `json:"vote_us" doc:"question until the verdict"`
	Verdict   string `json:"verdict" doc:"of the vote"`
	Yes       int    `json:"yes" doc:"votes"`
	No        int    `json:"no" doc:"votes"`
	Acted     int    `json:"acted" doc:"members that have done what was agreed on"`
	ActedUS   int64  `json:"acted_us" doc:"the first of them until the last, by their lines"`
	HandUS    int64  `json:"handover_us" doc:"the leader lets go until the next one leads"`
	HandAllUS int64  `json:"handover_all_us" doc:"the leader lets go until the rest share everything"`
	FailUS    int64  `json:"failover_us" doc:"kill -9 of the leader until the next one leads"`
	FailAllUS int64  `json:"failover_all_us" doc:"kill -9 until the rest share everything"`
	Terms     int    `json:"terms" doc:"how many were checked"`
	Shares    int    `json:"shares" doc:"how many were checked"`
	OK        bool   `json:"ok" doc:"nothing is wrong with any of it"`
}

func runDemo(ctx context.Context, c *call) (err error) {
	d := &demo{c: c, lease: demoLease, paint: c.colours(c.stdout), secret: rand.Text(), changed: make(chan struct{})}
	n := c.integer("members")
	if n < demoFewest || n > demoMost {
		return usageError("--members %d: from %d to %d are needed: one hands over, one is killed, the rest go on", n, demoFewest, demoMost)
	}
	if v, from := c.setting("lease"); from > fromDefault {
		d.lease = c.g.lease
		if err := quorate.CheckLease(d.lease); err != nil {
			return usageError("%s: %w", c.spelled("lease", from), err)
		}
		if d.lease > demoLongest {
			return usageError("%s %s: the demo takes at most %s, or it would not end within %s", c.spelled("lease", from), v, demoLongest, demoTime)
		}
	}
	if c.isSet("items") {
		if d.items, err = readItems("--items", c.str("items")); err != nil {
			return err
		}
	} else {
		d.items = strings.Fields(demoItems)
	}
	d.result = demoResult{Members: n, Items: len(d.items), LeaseMS: wire.ToMS(d.lease)}

	// The members are tied to the thread that starts them (see dieWithParent): whatever ends this process ends them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	bounded, cancel := context.WithTimeoutCause(ctx, demoTime, fmt.Errorf("not over after %s", demoTime))
	defer cancel()
	err = d.run(bounded, n)
	if cerr := d.end(); err == nil {
		err = cerr
	}
	if err != nil {
		if ctx.Err() != nil {
			return failure(ExitFailed, "demo: %w", ErrInterrupted)
		}
		return failure(ExitFailed, "demo: %w", err)
	}
	d.result.OK = true
	if c.g.json {
		return c.printJSON(d.result)
	}
	return nil
}

// A demo is one run of it.
type demo struct {
	c      *call
	lease  time.Duration
	items  []string
	paint  palette
	secret string // of the server: other users of the host can connect to its port
	result demoResult

	dir  string
	srv  *embedded.Server
	nc   *nats.Conn
	ns   *quorate.Namespace
	page func() // ends the page; nil without one
	all  []*demoMember
	done sync.WaitGroup // readers of the members' lines

	mu      sync.Mutex
	changed chan struct{} // closed and made anew at each line
}

// A demoMember is one process that runs `quorate join`.
type demoMember struct {
	id      string
	cmd     *exec.Cmd
	started time.Time
	stderr  bytes.Buffer
	exited  chan struct{}

	// Under the demo's lock.
	lines []eventcheck.Line
	bad   error     // a line that is none
	gone  bool      // it was told to go, or killed
	kill  time.Time // when it was killed
	share *eventcheck.Line
	term  *eventcheck.Line
	lost  eventcheck.Line // the end of its last term
}

func (d *demo) run(ctx context.Context, n int) error {
	c := d.c
	d.say("quorate demo: %d members, each a process of its own; lease %s", n, d.lease)
	if err := d.serve(ctx); err != nil {
		return err
	}
	if c.bool("web") {
		if err := d.web(ctx); err != nil {
			return err
		}
	}

	// ---- join and election
	for i := range n {
		answer := "yes"
		if i == n-1 {
			answer = "no"
		}
		if err := d.start(fmt.Sprintf("m%d", i+1), answer); err != nil {
			return err
		}
	}
	first := d.all[0].started
	d.head("Join")
	if err := d.await(ctx, "all are members", func() bool { return d.joined() == n }); err != nil {
		return err
	}
	last := d.lastJoined()
	d.result.JoinedUS = last.Sub(first).Microseconds()
	d.line(fmt.Sprintf("%s are members", d.names()), last.Sub(first), "first start to last member")

	d.head("Election")
	if err := d.await(ctx, "one of them leads", func() bool { return d.leader() != nil }); err != nil {
		return err
	}
	lead, since := d.leaderNow()
	d.result.ElectedUS = since.Sub(first).Microseconds()
	d.line(fmt.Sprintf("%s leads, token %d", lead.id, d.token(lead)), since.Sub(first), "first start to leader")

	// ---- shares
	d.head("Shares of " + count(len(d.items), "item"))
	shared, err := d.showShares(ctx, 0)
	if err != nil {
		return err
	}
	d.result.SharedUS = shared.Sub(last).Microseconds()
	d.line("every item has one owner", shared.Sub(last), "last member to all shared")

	// ---- vote
	if err := d.vote(ctx); err != nil {
		return err
	}

	if err := d.action(ctx); err != nil {
		return err
	}

	if err := d.look(ctx); err != nil {
		return err
	}

	// ---- hand-over
	d.head("Hand-over: " + lead.id + ", the leader, is told to leave (TERM)")
	before := d.generation()
	if err := d.leave(lead); err != nil {
		return err
	}
	if err := d.await(ctx, "another one leads", func() bool { l := d.leader(); return l != nil && l != lead && d.over(lead) }); err != nil {
		return err
	}
	next, since := d.leaderNow()
	released := d.lostAt(lead)
	d.result.HandUS = since.Sub(released).Microseconds()
	d.line(fmt.Sprintf("%s leads, token %d", next.id, d.token(next)), since.Sub(released), "old leader to new one")
	if shared, err = d.showShares(ctx, before); err != nil {
		return err
	}
	d.result.HandAllUS = shared.Sub(released).Microseconds()
	d.line("every item has one owner again", shared.Sub(released), "old leader to all shared")

	if err := d.look(ctx); err != nil {
		return err
	}

	// ---- crash
	lead = next
	d.head("Crash: the process of " + lead.id + ", the leader, is killed (kill -9)")
	before = d.generation()
	killed, err := d.crash(lead)
	if err != nil {
		return err
	}
	if err := d.await(ctx, "another one leads", func() bool { l := d.leader(); return l != nil && l != lead }); err != nil {
		return err
	}
	next, since = d.leaderNow()
	d.result.FailUS = since.Sub(killed).Microseconds()
	d.line(fmt.Sprintf("%s leads, token %d", next.id, d.token(next)), since.Sub(killed), "kill to new leader")
	if shared, err = d.showShares(ctx, before); err != nil {
		return err
	}
	d.result.FailAllUS = shared.Sub(killed).Microseconds()
	d.line("every item has one owner again", shared.Sub(killed), "kill to all shared")

	if d.page != nil {
		const rest = 3 * time.Second // for what follows
		deadline, _ := ctx.Deadline()
		stay := time.Until(deadline) - rest - 2*d.lease
		d.say("\nThe page stays for %d s.", max(int(stay.Seconds()), 0))
		if err := pass(ctx, stay); err != nil {
			return err
		}
	}

	// ---- leave, and the proof
	d.head("Check, over all lines that all members have printed")
	if err := d.leaveAll(ctx); err != nil {
		return err
	}
	if err := d.prove(); err != nil {
		return err
	}
	d.say("")
	d.say("Next: 'quorate join workers' in two terminals, and 'quorate members workers'.")
	if c.g.verbose {
		for _, m := range d.all {
			c.note("%s: %s", m.id, m.stderr.String())
		}
	}
	return nil
}

// ---- server and processes

func (d *demo) serve(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "quorate-demo-")
	if err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	d.dir = dir
	if err := os.WriteFile(filepath.Join(dir, "items"), []byte(strings.Join(d.items, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	began := time.Now()
	if d.srv, err = embedded.Start(ctx, embedded.Options{StoreDir: filepath.Join(dir, "store"), Token: d.secret, Logger: d.c.logger()}); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "embedded: "))
	}
	if d.nc, err = nats.Connect(d.srv.URL(), append(quorate.Options(d.lease), d.srv.Options()...)...); err != nil {
		return fmt.Errorf("connect to the server in this process: %w", err)
	}
	if d.ns, err = quorate.OpenWith(ctx, d.nc, quorate.Config{Lease: d.lease, Logger: d.c.logger()}, inner.Options{}); err != nil {
		return err
	}
	ready := time.Since(began)
	d.result.ServerUS = ready.Microseconds()
	d.line("a NATS server runs in this process", ready, "start to bucket made")
	return nil
}

// web serves the page. Other users of the host can reach it: it is theirs to look at only.
func (d *demo) web(ctx context.Context) error {
	l, err := d.c.listen(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	board := dashboard.New(dashboard.Config{ReadOnly: true, Where: "the demo's server", Timeout: d.lease, Logger: d.c.logger()})
	url, stop := d.c.serveOn(l, nil, board, 1000, func(error) {}) // the demo goes on without it
	run, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = board.Run(run, func(ctx context.Context) (*quorate.Namespace, error) { // what it cannot show is no fault of the demo's
			return quorate.OpenWith(ctx, d.nc, quorate.Config{Lease: d.lease, Logger: d.c.logger()}, inner.Options{AttachOnly: true})
		})
	}()
	d.page = func() { end(); <-done; stop(); l.Close() }
	if d.c.g.json {
		d.c.note("demo: the page: %s", url)
	}
	d.say("  the page: %s", url)
	return pass(ctx, 3*time.Second) // to open it
}

// look gives who looks at the page a moment before something happens.
func (d *demo) look(ctx context.Context) error {
	if d.page == nil {
		return nil
	}
	return pass(ctx, 2*time.Second)
}

// pass waits.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// start starts a member as a user would: this program, with `join`.
func (d *demo) start(id, answer string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program to start members with: %w", err)
	}
	m := &demoMember{id: id, exited: make(chan struct{})}
	m.cmd = exec.Command(self, "join", demoGroup, "--id", id, "--items", filepath.Join(d.dir, "items"), "--vote", answer, "--output", "json")
	m.cmd.Env = d.environment()
	m.cmd.Stderr = &m.stderr
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	dieWithParent(m.cmd)
	m.started = time.Now()
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	d.all = append(d.all, m)
	d.done.Go(func() {
		d.read(m, out)
		_ = m.cmd.Wait() // how it ended is in ProcessState
		d.mu.Lock()
		close(m.exited)
		d.stir()
		d.mu.Unlock()
	})
	return nil
}

// environment is what the members get: the server's secret by a variable, since others can read the words of a process, and none of
// our user's settings, which are for another server.
func (d *demo) environment() []string {
	var env []string
	for _, name := range sortedKeys(d.c.env) {
		if !strings.HasPrefix(name, "NATS_") && !strings.HasPrefix(name, "QUORATE_") && name != "HOME" && name != "XDG_CONFIG_HOME" {
			env = append(env, name+"="+d.c.env[name])
		}
	}
	return append(env, "HOME="+d.dir, "NATS_URL="+d.srv.URL(), "NATS_TOKEN="+d.secret, "QUORATE_LEASE="+d.lease.String())
}

// read takes a member's lines.
func (d *demo) read(m *demoMember, out io.Reader) {
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return // it has ended; half a line is none
		}
		l, err := eventcheck.Parse(line)
		d.mu.Lock()
		if err != nil && m.bad == nil {
			m.bad = err
		}
		m.lines = append(m.lines, l)
		own := l.Member == m.id || l.Leader == m.id
		switch {
		case !own:
		case l.Type == evAssigned:
			m.share = &l
		case l.Type == evRevoked:
			m.share = nil
		case l.Type == evLeaderElected:
			m.term = &l
		case l.Type == evLeaderLost:
			m.term, m.lost = nil, l
		}
		d.stir()
		d.mu.Unlock()
	}
}

// stir wakes who waits for lines. With the lock held.
func (d *demo) stir() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits until what is true. It is asked with the lock held, at each line.
func (d *demo) await(ctx context.Context, what string, is func() bool) error {
	for {
		d.mu.Lock()
		ok, changed := is(), d.changed
		var dead *demoMember
		for _, m := range d.all {
			if m.bad != nil {
				d.mu.Unlock()
				return fmt.Errorf("%s printed a line that cannot be read: %w", m.id, m.bad)
			}
			select {
			case <-m.exited:
				if !m.gone {
					dead = m
				}
			default:
			}
		}
		d.mu.Unlock()
		switch {
		case ok:
			return nil
		case dead != nil:
			return fmt.Errorf("the process of %s has ended by itself (%s): %s", dead.id, dead.cmd.ProcessState, lastLine(dead.stderr.String()))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		}
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// leave tells a member to leave, and does not wait.
func (d *demo) leave(m *demoMember) error {
	d.mu.Lock()
	m.gone = true
	d.mu.Unlock()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("tell %s to leave: %w", m.id, err)
	}
	return nil
}

// crash kills a member, and returns when it was dead at the earliest.
func (d *demo) crash(m *demoMember) (time.Time, error) {
	d.mu.Lock()
	m.gone = true
	d.mu.Unlock()
	at := time.Now()
	if err := m.cmd.Process.Kill(); err != nil {
		return at, fmt.Errorf("kill %s: %w", m.id, err)
	}
	<-m.exited
	d.mu.Lock()
	defer d.mu.Unlock()
	m.kill, m.term, m.share = at, nil, nil
	return at, nil
}

func (d *demo) leaveAll(ctx context.Context) error {
	for _, m := range d.all {
		if !m.gone {
			if err := d.leave(m); err != nil {
				return err
			}
		}
	}
	for _, m := range d.all {
		select {
		case <-m.exited:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s has left: %w", m.id, context.Cause(ctx))
		}
		if code := m.cmd.ProcessState.ExitCode(); m.kill.IsZero() && code != 0 {
			return fmt.Errorf("%s left with exit code %d: %s", m.id, code, lastLine(m.stderr.String()))
		}
	}
	return nil
}

// end leaves nothing behind: no process, no server, no file.
func (d *demo) end() error {
	for _, m := range d.all {
		_ = m.cmd.Process.Kill() // most have ended already
	}
	d.done.Wait()
	if d.page != nil {
		d.page()
	}
	if d.ns != nil {
		ctx, cancel := context.WithTimeout(context.Background(), d.lease)
		_ = d.ns.Close(ctx) // nothing was opened that could stay
		cancel()
	}
	if d.nc != nil {
		d.nc.Close()
	}
	if d.srv != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeMost)
		defer cancel()
		if err := d.srv.Close(ctx); err != nil {
			return err
		}
	}
	if d.dir != "" {
		return os.RemoveAll(d.dir)
	}
	return nil
}

// ---- what the lines say; with the lock held where it is not taken

func (d *demo) joined() int {
	n := 0
	for _, m := range d.all {
		if slices.ContainsFunc(m.lines, func(l eventcheck.Line) bool { return l.Type == evJoined }) {
			n++
		}
	}
	return n
}

func (d *demo) lastJoined() (at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.all {
		for _, l := range m.lines {
			if l.Type == evJoined && l.Time.After(at) {
				at = l.Time
			}
		}
	}
	return at
}

// leader is who leads, if one does and no second one.
func (d *demo) leader() *demoMember {
	var lead *demoMember
	for _, m := range d.all {
		if m.term != nil {
			if lead != nil {
				return nil // lines of two processes come in any order; the proof at the end goes by their times
			}
			lead = m
		}
	}
	return lead
}

func (d *demo) leaderNow() (*demoMember, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.leader()
	if m == nil {
		// It has changed again since: the last one that did.
		for _, o := range d.all {
			if o.lost.Type != "" && (m == nil || o.lost.Time.After(m.lost.Time)) {
				m = o
			}
		}
		return m, m.lost.Time
	}
	return m, m.term.Time
}

func (d *demo) token(m *demoMember) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.term == nil {
		return m.lost.Token
	}
	return m.term.Token
}

func (d *demo) over(m *demoMember) bool { return m.term == nil && m.lost.Type != "" }

func (d *demo) lostAt(m *demoMember) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return m.lost.Until
}

// shares are the shares that the members hold who are there, nil unless all have one of the same generation.
func (d *demo) shares() map[string]eventcheck.Line {
	out := map[string]eventcheck.Line{}
	var gen uint64
	for _, m := range d.all {
		if m.gone {
			continue
		}
		if m.share == nil || gen != 0 && m.share.Generation != gen {
			return nil
		}
		gen = m.share.Generation
		out[m.id] = *m.share
	}
	for _, s := range out {
		if s.Total != len(out) {
			return nil
		}
	}
	return out
}

func (d *demo) generation() (gen uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.all {
		if m.share != nil {
			gen = max(gen, m.share.Generation)
		}
	}
	return gen
}

// prove checks all lines against what is promised.
func (d *demo) prove() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []eventcheck.Witness
	terms, shares := 0, 0
	for _, m := range d.all {
		w := eventcheck.Witness{Name: m.id, Lines: m.lines, Ended: m.kill}
		s, t := w.Holdings()
		terms, shares = terms+len(t), shares+len(s)
		all = append(all, w)
	}
	d.result.Terms, d.result.Shares = terms, shares
	if wrong := eventcheck.Check(all); len(wrong) > 0 {
		return fmt.Errorf("not what is promised: %s", strings.Join(wrong, "; "))
	}
	d.ok("never two leaders: %s, each with a higher token", count(terms, "term"))
	d.ok("never two owners of one item: %s, no two generations at once", count(shares, "share"))
	return nil
}

// ---- vote

func (d *demo) vote(ctx context.Context) error {
	d.head("Vote: 'switch over?', majority")
	cl, err := coord.Open(ctx, d.ns, demoGroup)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := d.voters(ctx, cl); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	began := time.Now()
	v, err := vote.Propose(bounded, cl, vote.Proposal{Topic: "switch over?", Kind: vote.Majority})
	took := time.Since(began)
	if err != nil {
		return err
	}
	d.result.VoteUS, d.result.Verdict, d.result.Yes, d.result.No = took.Microseconds(), v.Verdict, v.Yes, v.No
	if v.Verdict != vote.Passed {
		return fmt.Errorf("vote: the verdict is %s (%d yes, %d no of %d), want yes %s", v.Verdict, v.Yes, v.No, v.Of, v.Why)
	}
	d.line(fmt.Sprintf("%s: %d yes, %d no of %d, decided early", v.Verdict, v.Yes, v.No, v.Of), took, "question to verdict")
	return nil
}

// voters waits until all are known to have a vote, which each says by itself: a vote of fewer may end otherwise.
func (d *demo) voters(ctx context.Context, cl *coord.Client) error {
	for {
		r, err := cl.Roster(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, m := range r.Members {
			if slices.Contains(m.Roles, wire.RoleVote) {
				n++
			}
		}
		if n == len(d.all) {
			return nil
		}
		if err := pass(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("waiting until all have a vote: %w", err)
		}
	}
}

// action has those who say yes act at one instant. On a machine that is too busy to agree on it in time it is tried once more, later.
func (d *demo) action(ctx context.Context) error {
	d.head("Action: 'switch over', by all who say yes, at one instant")
	cl, err := coord.Open(ctx, d.ns, demoGroup)
	if err != nil {
		return err
	}
	defer cl.Close()
	var v vote.Verdict
	for _, ahead := range []time.Duration{d.lease/2 + 500*time.Millisecond, 5 * time.Second} {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		v, err = vote.Propose(bounded, cl, vote.Proposal{Topic: "switch over", Kind: vote.Majority, At: time.Now().Add(ahead), Tolerance: 5 * time.Second})
		cancel()
		if err != nil {
			return err
		}
		if v.Won() {
			break
		}
	}
	if !v.Won() {
		return fmt.Errorf("action: the verdict is %s (%d yes, %d no of %d), want yes %s", v.Verdict, v.Yes, v.No, v.Of, v.Why)
	}
	d.line(fmt.Sprintf("%s: %d yes, %d no of %d", v.Verdict, v.Yes, v.No, v.Of), time.Until(v.At), "verdict to instant")
	bounded, cancel := context.WithTimeout(ctx, time.Until(v.At)+10*time.Second)
	defer cancel()
	o, err := v.Outcome(bounded)
	if err != nil {
		return err
	}
	if n := o.Count(vote.Done); n < v.Yes {
		return fmt.Errorf("action: %d members said yes, %d have acted: %s", v.Yes, n, strings.TrimSpace(oneLine(outcomeText(o))))
	}
	var first, last time.Time
	err = d.await(ctx, "those who have acted say so", func() bool {
		n := 0
		for _, m := range d.all {
			for _, l := range m.lines {
				if l.Type != evAction || l.Ballot != v.Ballot || l.Member != m.id {
					continue
				}
				if n++; first.IsZero() || l.Time.Before(first) {
					first = l.Time
				}
				if l.Time.After(last) {
					last = l.Time
				}
			}
		}
		return n >= len(o.Reports)-o.Count(vote.Unheard)
	})
	if err != nil {
		return err
	}
	d.result.Acted, d.result.ActedUS = o.Count(vote.Done), last.Sub(first).Microseconds()
	d.line(count(d.result.Acted, "member")+" have acted", last.Sub(first), "first to last")
	return nil
}

// ---- what is shown

const demoWidth = 79

// say prints a line; for JSON only what was measured is printed.
func (d *demo) say(format string, args ...any) {
	if !d.c.g.json {
		_ = d.c.print(fmt.Sprintf(format, args...) + "\n") // a reader that went away sees nothing, and the exit code is still right
	}
}

func (d *demo) head(text string) { d.say("\n%s", d.paint.mark(text)) }

func (d *demo) ok(format string, args ...any) {
	d.say("  %s %s", d.paint.good("ok"), fmt.Sprintf(format, args...))
}

// line prints what has happened, how long it took, and what that is.
func (d *demo) line(text string, took time.Duration, what string) {
	const column = 43 // of text; a longer one gets a line of its own
	text = "  " + text
	if len([]rune(text)) > column {
		d.say("%s", text)
		text = ""
	}
	pad := strings.Repeat(" ", column-len([]rune(text)))
	d.say("%s%s%s", text, pad, d.paint.dim(fmt.Sprintf("%9s  %s", msText(took), what)))
}

// msText is a duration in milliseconds, with a decimal where that says something.
func msText(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}

func (d *demo) names() string {
	var ids []string
	for _, m := range d.all {
		ids = append(ids, m.id)
	}
	return summary(ids, 28)
}

// showShares waits for a generation after the given one that everybody who is there has a share of, checks the shares and prints
// who has what. It returns when the last one got its share.
func (d *demo) showShares(ctx context.Context, after uint64) (at time.Time, err error) {
	var shares map[string]eventcheck.Line
	err = d.await(ctx, "all have their shares", func() bool {
		shares = d.shares()
		for _, s := range shares {
			if s.Generation <= after {
				return false
			}
		}
		return shares != nil
	})
	if err != nil {
		return at, err
	}
	if wrong := eventcheck.CheckShares(shares, d.items); len(wrong) > 0 {
		return at, fmt.Errorf("shares: %s", strings.Join(wrong, "; "))
	}
	ids := sortedKeys(shares)
	slices.SortFunc(ids, func(a, b string) int { return shares[a].Index - shares[b].Index })
	for _, id := range ids {
		s := shares[id]
		if s.Time.After(at) {
			at = s.Time
		}
		left := fmt.Sprintf("  %-4s index %*d of %d  %s: ", id, len(fmt.Sprint(s.Total-1)), s.Index, s.Total, count(len(s.Items), "item"))
		d.say("%s%s", left, d.paint.dim(oneLine(summary(s.Items, demoWidth-len(left)))))
	}
	return at, nil
}

// summary is as many of the texts as fit into n characters.
func summary(texts []string, n int) string {
	s := strings.Join(texts, " ")
	if len([]rune(s)) <= n {
		return s
	}
	s = ""
	for i, t := range texts {
		more := fmt.Sprintf(" … %d more", len(texts)-i)
		if len([]rune(s))+1+len([]rune(t))+len([]rune(more)) > n {
			if s == "" {
				return cut(t, max(n-len(more), 1)) + more
			}
			return s + more
		}
		if s != "" {
			s += " "
		}
		s += t
	}
	return s
}
