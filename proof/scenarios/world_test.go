//go:build scenarios && linux

package scenarios

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/eventcheck"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

const (
	group    = "g"
	stream   = "KV_QUORATE_default"
	tries    = "TRIES"         // a stream that is written to only to see how long that takes
	patience = 2 * time.Minute // for what must happen; nothing is asserted about how soon
	ballotMS = 3000            // a ballot's deadline
)

// A kind is what the servers are.
type kind struct {
	name     string
	servers  int
	replicas int
	lease    time.Duration
	extra    string // of the server's configuration
}

var kinds = []kind{
	{"single", 1, 1, time.Second, "sync_interval: always"},
	{"cluster", 3, 3, 2 * time.Second, ""},
}

var worlds atomic.Int64

// A world is one scenario's servers, members, workers and client.
type world struct {
	t   *testing.T
	k   kind
	s   *scenario
	dir string
	hub *hub
	reg *register

	servers []*process
	members []*process
	workers []*process
	items   []string

	nc *nats.Conn // of the client in this process, which nothing is done to
	ns *quorate.Namespace
	js jetstream.JetStream

	client  *coord.Client   // of who polls
	running context.Context // while it does
	asking  sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew at each line
	all      []*process    // also those that are gone
	losses   []eventcheck.Loss
	bound    quorate.Explanation
	well0    time.Time // from when on no item may be nobody's for too long (P5), if nothing has happened that allows it:
	troubles []eventcheck.Trouble
	plans    []eventcheck.Plan
	idle     eventcheck.Idle
	votes    eventcheck.Witness
	asked    map[string]int // verdicts, by kind
	parts    map[string]int // of members in actions, by status
	slowest  time.Duration  // longest that a vote took
	ending   bool
	over     time.Time // when those who were left were told to end: what they take over from each other then is not counted
}

// A process is one run of a program. The one that is started in its place is another process of the same name.
type process struct {
	w      *world
	name   string
	role   string // server, member, worker
	net    *network
	url    string        // of NATS, for those that use it
	link   *testenv.Link // before NATS, if the scenario asks for one
	later  bool          // started the next time, it is of a later release
	make   func() *exec.Cmd
	cmd    *exec.Cmd
	errs   string // file
	exited chan struct{}

	// Under the world's lock.
	lines   []eventcheck.Line
	raw     []string
	bad     error
	gone    bool // it was killed, or told to end
	killed  time.Time
	stopped time.Time
	stood   [][2]time.Time // from when to when it was stopped, and continued
}

func newWorld(t *testing.T, s *scenario, k kind) *world {
	w := &world{t: t, s: s, k: k, dir: t.TempDir(), changed: make(chan struct{}), asked: map[string]int{}, parts: map[string]int{}}
	w.votes.Name = "client"
	t.Cleanup(w.close)
	w.must(os.Chmod(w.dir, 0o700))
	var err error
	w.bound, err = quorate.Explain(quorate.Timings{Lease: k.lease}, quorate.Situation{})
	w.must(err)
	w.hub, err = newHub(int(worlds.Add(1)))
	w.must(err)
	w.reg, err = newRegister(w.dir)
	w.must(err)
	for i := range 200 {
		w.items = append(w.items, fmt.Sprintf("item %d", i))
	}
	w.must(os.WriteFile(w.path("items"), []byte(strings.Join(w.items, "\n")+"\n"), 0o600))
	w.makeServers()
	for _, s := range w.servers {
		w.must(s.start())
	}
	w.await("the servers take writes", func() bool { return w.ready() })
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// ---- servers

func (w *world) makeServers() {
	var nets []*network
	for range w.k.servers {
		n, err := w.hub.connect()
		w.must(err)
		nets = append(nets, n)
	}
	for i, n := range nets {
		name := fmt.Sprintf("s%d", i)
		store := w.path("store-" + name)
		w.must(os.Mkdir(store, 0o700))
		if w.s.disk != "" {
			w.must(unix.Mount("tmpfs", store, "tmpfs", 0, "size="+w.s.disk))
			w.t.Cleanup(func() { _ = unix.Unmount(store, unix.MNT_DETACH) }) // runs after close: the last cleanup is the first
		}
		var routes []string
		for j, o := range nets {
			if j != i {
				routes = append(routes, fmt.Sprintf("%q", "nats-route://"+o.addr+":6222"))
			}
		}
		conf := fmt.Sprintf("server_name: %s\nlisten: \"%s:4222\"\njetstream { store_dir: %q, max_mem: 32MB, max_file: 256MB, %s }\nlog_file: %q\nlogtime_utc: true\n",
			name, n.addr, store, w.k.extra, w.path(name+".log"))
		if len(routes) > 0 {
			// Clients get all URLs to begin with, and must not learn ways round what stands before them.
			conf += fmt.Sprintf("cluster { name: c%d, listen: \"%s:6222\", no_advertise: true, routes: [%s] }\n", w.hub.world, n.addr, strings.Join(routes, ", "))
		}
		w.must(os.WriteFile(w.path(name+".conf"), []byte(conf), 0o600))
		w.servers = append(w.servers, w.process(name, "server", n, func() *exec.Cmd {
			cmd := exec.Command("/proc/self/exe", w.path(name+".conf"))
			cmd.Env = append(os.Environ(), roleEnv+"=server")
			return cmd
		}))
	}
}

func (w *world) url(without ...*process) string {
	var l []string
	for _, s := range w.servers {
		if !slices.Contains(without, s) {
			l = append(l, "nats://"+s.net.addr+":4222")
		}
	}
	return strings.Join(l, ",")
}

// ready reports whether a stream with all replicas takes a write (R34). The bucket is made once it does, for with fewer servers in sight it would
// get fewer replicas.
func (w *world) ready() bool {
	if w.nc == nil {
		nc, err := nats.Connect(w.url(), append(quorate.Options(w.k.lease), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), nats.Timeout(time.Second))...)
		if err != nil {
			return false
		}
		w.nc = nc
		w.js, err = jetstream.New(nc)
		w.must(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	const name = "READY"
	if _, err := w.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Replicas: w.k.replicas}); err != nil {
		return false
	}
	_, err := w.js.Publish(ctx, name, nil)
	return err == nil && w.js.DeleteStream(ctx, name) == nil
}

// info is what the servers say about the bucket's stream; nil when nobody does.
func (w *world) info() *jetstream.StreamInfo { return infoBy(w.js) }

func infoBy(js jetstream.JetStream) *jetstream.StreamInfo {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil
	}
	return s.CachedInfo()
}

// streamLeader is the server that leads the bucket's stream; nil when none does.
func (w *world) streamLeader() *process { return w.streamLeaderBy(w.js) }

func (w *world) streamLeaderBy(js jetstream.JetStream) *process {
	i := infoBy(js)
	if i == nil {
		return nil
	}
	if w.k.servers == 1 {
		return w.servers[0]
	}
	if i.Cluster == nil {
		return nil
	}
	for _, s := range w.servers {
		if s.name == i.Cluster.Leader {
			return s
		}
	}
	return nil
}

// ---- members, workers and the client

// populate starts the members and workers, and the client that asks for votes.
func (w *world) populate() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	w.ns, err = quorate.Open(ctx, w.nc, quorate.Config{Lease: w.k.lease, Replicas: w.k.replicas, Logger: slog.New(slog.DiscardHandler)})
	w.must(err)
	_, err = w.nc.Subscribe("quorate.default.kv."+wire.SettledKey(group), w.planned)
	w.must(err)
	var i *jetstream.StreamInfo
	w.await("the bucket is there", func() bool { i = w.info(); return i != nil })
	if i.Config.Replicas != w.k.replicas {
		w.t.Fatalf("bucket: %+v, want %d replicas", i, w.k.replicas)
	}
	w.await("the stream of tries is there", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := w.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: tries, Subjects: []string{tries}, Replicas: w.k.replicas, MaxMsgs: 1})
		return err == nil
	})
	for i := range 3 {
		w.members = append(w.members, w.user(fmt.Sprintf("m%d", i), "member"))
	}
	for i := range 2 {
		w.workers = append(w.workers, w.user(fmt.Sprintf("w%d", i), "worker"))
	}
	for _, p := range w.users() {
		w.must(p.start())
	}
}

func (w *world) users() []*process { return append(slices.Clone(w.members), w.workers...) }

func (w *world) user(name, role string) *process {
	n, err := w.hub.connect()
	w.must(err)
	url := w.url()
	p := w.process(name, role, n, nil)
	if w.s.proxied {
		p.link, url = w.proxy()
	}
	p.url = url
	home := w.path("home-" + name)
	w.must(os.Mkdir(home, 0o700))
	env := []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "NATS_URL=" + url, "NATS_TIMEOUT=" + patience.String(), "QUORATE_LEASE=" + w.k.lease.String()}
	p.make = func() *exec.Cmd {
		binary := os.Getenv(binaryEnv)
		if p.later {
			binary = os.Getenv(laterEnv)
		}
		cmd := exec.Command(binary, "join", group, "--id", name, "--items", w.path("items"), "--vote", "yes", "--on-action", acting(w.path("acts-"+name)), "--output", "json")
		if role == "worker" {
			cmd = exec.Command("/proc/self/exe")
			env = append(env, roleEnv+"=worker", "WORKER_ID="+name, "WORKER_LEASE="+w.k.lease.String(), "WORKER_REGISTER="+w.reg.path)
		}
		cmd.Env = env
		return cmd
	}
	return p
}

// proxy stands between one process and NATS: a link that can swallow single messages, before real sockets.
func (w *world) proxy() (*testenv.Link, string) {
	l, err := net.Listen("tcp", w.hub.addr()+":0")
	w.must(err)
	var next atomic.Int64
	link := testenv.NewLink(dialer(func() (net.Conn, error) {
		s := w.servers[int(next.Add(1))%len(w.servers)]
		return net.DialTimeout("tcp", s.net.addr+":4222", time.Second)
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer near.Close()
				far, err := link.InProcessConn()
				if err != nil {
					return
				}
				defer far.Close()
				var both sync.WaitGroup
				carry := func(to, from net.Conn) {
					defer near.Close()
					defer far.Close()
					_, _ = io.Copy(to, from) // either end may hang up
				}
				both.Go(func() { carry(near, far) })
				both.Go(func() { carry(far, near) })
				both.Wait()
			})
		}
	})
	w.t.Cleanup(func() {
		l.Close()
		link.Close()
		wg.Wait()
	})
	return link, "nats://" + l.Addr().String()
}

type dialer func() (net.Conn, error)

func (d dialer) InProcessConn() (net.Conn, error) { return d() }

// poll asks for a vote each second, and agrees on an action every other, until the function it returns is called (V3: each is answered by its deadline).
func (w *world) poll() (stop func()) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c, err := coord.Open(ctx, w.ns, group)
	cancel()
	w.must(err)
	w.client = c
	run, end := context.WithCancel(context.Background())
	w.running = run
	wg := &w.asking
	wg.Go(func() { w.watchTheServer(run) })
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for i := 0; ; i++ {
			wg.Go(func() {
				w.ask(vote.Proposal{Topic: fmt.Sprintf("question %d", i), Kind: vote.Majority})
				if i%2 == 0 { // instants at any distance: some lie within the fault, some before, some after
					ahead := w.k.lease/2 + time.Duration(i%8)*w.k.lease/2
					w.outcome(w.ask(vote.Proposal{Topic: fmt.Sprintf("action %d", i), Kind: vote.Majority, At: time.Now().Add(ahead), Tolerance: tolerance}))
				}
			})
			select {
			case <-tick.C:
			case <-run.Done():
				return
			}
		}
	})
	return func() {
		end()
		wg.Wait()
		c.Close()
	}
}

// tolerance of all actions.
const tolerance = 500 * time.Millisecond

// acting is the command of --on-action: it notes which ballot it is for, which process of quorate has run it, and when.
func acting(file string) string {
	return "echo $QUORATE_BALLOT $PPID $(date +%s.%N) >>" + file
}

// agree has the members agree on an action at an instant ahead.
func (w *world) agree(topic string, ahead time.Duration) (v vote.Verdict) {
	w.t.Helper()
	w.await(topic+" is agreed on", func() bool {
		v = w.ask(vote.Proposal{Topic: topic, Kind: vote.Consensus, At: time.Now().Add(ahead), Tolerance: tolerance})
		return v.Won()
	})
	return v
}

// act waits until an action was agreed on that somebody has then begun in time: a busy machine may be late for a while.
func (w *world) act(topic string) {
	w.t.Helper()
	w.await(topic+" is done", func() bool { return w.outcome(w.agree(topic, w.k.lease)).Count(vote.Done) > 0 })
}

// outcome waits until members have told their part in an action, or the time for that is over, and notes it as the client's own lines.
func (w *world) outcome(v vote.Verdict) vote.Outcome {
	if !v.Won() {
		return vote.Outcome{}
	}
	ctx, cancel := context.WithTimeout(w.running, max(time.Until(v.At), 0)+4*w.k.lease)
	defer cancel()
	o, err := v.Outcome(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && w.running.Err() == nil {
		w.t.Errorf("outcome of ballot %s: %v", v.Ballot, err)
	}
	for _, r := range o.Reports {
		if w.running.Err() != nil && r.Status == vote.Unheard {
			continue // it was not waited for
		}
		w.parts[r.Status]++
		w.votes.Lines = append(w.votes.Lines, eventcheck.Line{Type: "action", Time: time.Now(), Group: group, Ballot: v.Ballot, Member: r.Member, Status: r.Status})
	}
	return o
}

// ask puts a question to the group and checks how it is answered.
func (w *world) ask(p vote.Proposal) (v vote.Verdict) {
	const most = ballotMS * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	began := time.Now()
	v, err := vote.Propose(ctx, w.client, p)
	took := time.Since(began)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slowest = max(w.slowest, took)
	// 30 s are for a machine that has other things to do; an answer that does not come never comes.
	if took > most+30*time.Second {
		w.t.Errorf("V3: %s was answered after %s, its deadline was %s", p.Topic, took, most)
	}
	if err != nil && !errors.Is(err, vote.ErrNoVoters) {
		w.t.Errorf("V3: %s: %v", p.Topic, err)
	}
	if err != nil {
		w.asked["no voters"]++
		return v
	}
	w.asked[v.Verdict]++
	w.votes.Lines = append(w.votes.Lines, eventcheck.Line{Type: "verdict", Time: time.Now(), Group: group, Ballot: v.Ballot, Verdict: v.Verdict,
		Yes: v.Yes, No: v.No, Abstain: v.Abstain, Of: v.Of, At: v.At, ToleranceMS: v.Tolerance.Milliseconds()})
	return v
}

// ---- processes

func (w *world) process(name, role string, n *network, make func() *exec.Cmd) *process {
	return &process{w: w, name: name, role: role, net: n, make: make}
}

// start starts the process, once more if it was started before: then it is a new witness.
func (p *process) start() error {
	w := p.w
	if p.cmd != nil {
		old := *p
		w.mu.Lock()
		for i, q := range w.all {
			if q == p {
				w.all[i] = &old // what it had said is kept
			}
		}
		p.lines, p.raw, p.bad, p.gone, p.killed, p.stopped = nil, nil, nil, false, time.Time{}, time.Time{}
		w.mu.Unlock()
	}
	p.cmd = p.make()
	p.exited = make(chan struct{})
	n := len(w.all)
	p.errs = w.path(fmt.Sprintf("%s-%d.stderr", p.name, n))
	errs, err := os.Create(p.errs)
	if err != nil {
		return err
	}
	defer errs.Close()
	p.cmd.Stderr = errs
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := spawn(p.net, p.cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	w.mu.Lock()
	w.all = append(w.all, p)
	w.mu.Unlock()
	cmd, exited := p.cmd, p.exited
	go func() {
		in := bufio.NewReader(out)
		for {
			text, err := in.ReadBytes('\n')
			if err != nil {
				break // half a line is none
			}
			l, err := eventcheck.Parse(text)
			w.mu.Lock()
			if err != nil && p.bad == nil {
				p.bad = fmt.Errorf("%q: %w", text, err)
			}
			p.lines, p.raw = append(p.lines, l), append(p.raw, string(text))
			w.stir()
			w.mu.Unlock()
		}
		_ = cmd.Wait() // how it ended is in ProcessState
		w.mu.Lock()
		close(exited)
		if !p.gone && !w.ending && p.cmd == cmd {
			p.bad = errors.Join(p.bad, fmt.Errorf("ended by itself: %s", cmd.ProcessState))
		}
		w.stir()
		w.mu.Unlock()
	}()
	return nil
}

// stir wakes who waits. With the lock held.
func (w *world) stir() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// await waits until what is true; it is asked again at each line and ten times a second.
func (w *world) await(what string, is func() bool) {
	w.t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		w.mu.Lock()
		changed := w.changed
		for _, p := range w.all {
			if p.bad != nil {
				w.mu.Unlock()
				w.t.Fatalf("%s: %v", p.name, p.bad)
			}
		}
		w.mu.Unlock()
		if is() {
			return
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-end:
			w.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// pass lets time go by: a fault lasts.
func pass(d time.Duration) { <-time.After(d) }

func (p *process) signal(s syscall.Signal) {
	p.w.t.Helper()
	p.w.must(p.cmd.Process.Signal(s))
}

// kill kills processes with SIGKILL, all at once, and waits until they are dead of it.
func kill(all ...*process) string {
	w := all[0].w
	w.t.Helper()
	at := time.Now()
	w.silenced("killed", at, all, 0)
	w.mu.Lock()
	for _, p := range all {
		p.gone, p.killed = true, at
	}
	w.mu.Unlock()
	var said []string
	for _, p := range all {
		p.signal(syscall.SIGKILL)
	}
	for _, p := range all {
		<-p.exited
		if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() || s.Signal() != syscall.SIGKILL {
			w.t.Fatalf("%s was to die of SIGKILL: %s", p.name, p.cmd.ProcessState)
		}
		said = append(said, p.name)
	}
	return strings.Join(said, ", ") + " dead of signal 9"
}

// stop stops processes with SIGSTOP, and waits until they are.
func stop(all ...*process) string {
	w := all[0].w
	w.t.Helper()
	var said []string
	for _, p := range all {
		at := time.Now()
		w.silenced("stopped", at, []*process{p}, 0)
		p.signal(syscall.SIGSTOP)
		w.await(p.name+" is stopped", func() bool { return p.state() == "T" })
		w.mu.Lock()
		p.stopped = at
		w.mu.Unlock()
		said = append(said, p.name)
	}
	return strings.Join(said, ", ") + " in state T"
}

// cont continues them. That they were stopped all the time is looked at before.
func cont(all ...*process) {
	w := all[0].w
	w.t.Helper()
	for _, p := range all {
		if s := p.state(); s != "T" {
			w.t.Fatalf("%s is in state %s, was to be stopped", p.name, s)
		}
		p.signal(syscall.SIGCONT)
		w.mu.Lock()
		p.stood = append(p.stood, [2]time.Time{p.stopped, time.Now()})
		p.stopped = time.Time{} // it says itself when its rights ended
		w.mu.Unlock()
	}
}

// state is the process's state in /proc, T when it is stopped.
func (p *process) state() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return "gone"
	}
	s := string(b)
	return string(s[strings.LastIndex(s, ")")+2])
}

// end tells processes to end, all at once, and waits until they have.
func end(all ...*process) {
	w := all[0].w
	w.t.Helper()
	lead := w.leads(w.members)
	at := time.Now()
	for _, p := range all {
		w.mu.Lock()
		p.gone = true
		w.mu.Unlock()
		p.signal(syscall.SIGTERM)
	}
	defer func() { // a crowd tells of each of its members itself
		for _, p := range all {
			if p.role == "member" && (lead == nil || lead == p) {
				w.trouble(p.name+" left, and may have led", at, time.Now(), w.bound.HandOver+w.bound.Reassignment)
			} else if p.role == "member" {
				w.trouble(p.name+" left", at, time.Now(), w.bound.LeaveSettled)
			}
		}
	}()
	for _, p := range all {
		select {
		case <-p.exited:
		case <-time.After(patience):
			w.t.Fatalf("%s was told to end, and has not within %s", p.name, patience)
		}
	}
}

// ---- what the lines say; these take the lock

// term is the leadership that a process holds by its lines; share is its share. With the lock held.
func (p *process) term() (t *eventcheck.Line) {
	for i := range p.lines {
		if l := &p.lines[i]; l.Leader == l.Self && l.Leader != "" {
			switch l.Type {
			case "leader-elected":
				t = l
			case "leader-lost":
				t = nil
			}
		}
	}
	return t
}

func (p *process) share() (s *eventcheck.Line) {
	for i := range p.lines {
		if l := &p.lines[i]; l.Member == l.Self && l.Member != "" {
			switch l.Type {
			case "assigned":
				s = l
			case "revoked":
				s = nil
			}
		}
	}
	return s
}

// leads is which of these holds a term, if one does.
func (w *world) leads(ps []*process) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lead *process
	for _, p := range ps {
		if p.term() != nil {
			if lead != nil {
				return nil // lines of two processes come in any order: the check at the end goes by their times
			}
			lead = p
		}
	}
	return lead
}

// well reports whether these members and workers, and nobody else, have all that they should: a leader, a share each of one generation,
// and a holder of the register that writes.
func (w *world) well(members, workers []*process) bool {
	if w.leads(members) == nil {
		return false
	}
	h := w.leads(workers)
	if h == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := h.term(); t == nil || !w.reg.written(t.Token) {
		return false
	}
	shares := map[string]eventcheck.Line{}
	for _, p := range members {
		s := p.share()
		if s == nil || s.Total != len(members) || s.Generation != members[0].share().Generation {
			return false
		}
		shares[p.name] = *s
	}
	if wrong := eventcheck.CheckShares(shares, w.items); len(wrong) > 0 {
		w.t.Errorf("shares: %s", strings.Join(wrong, "; "))
	}
	return true
}

// awaitWell waits until all is well with these alone; none are all.
func (w *world) awaitWell(what string, without ...*process) {
	w.t.Helper()
	in := func(ps []*process) []*process {
		return slices.DeleteFunc(slices.Clone(ps), func(p *process) bool { return slices.Contains(without, p) })
	}
	members, workers := in(w.members), in(w.workers)
	w.await(what+": a leader, a share each, and a holder of the register", func() bool { return w.well(members, workers) })
}

// victims are the member that leads and the worker that holds the register: most faults happen to them.
func (w *world) victims() []*process {
	var m, h *process
	w.await("somebody leads, somebody holds the register", func() bool {
		m, h = w.leads(w.members), w.leads(w.workers)
		return m != nil && h != nil
	})
	return []*process{m, h}
}

// nobody reports whether nobody holds anything.
func (w *world) nobody() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.users(), func(p *process) bool { return p.term() != nil || p.share() != nil })
}

// ---- the end

// leave has all end as they should, and proves what their lines say.
func (w *world) leave() {
	w.t.Helper()
	w.over = time.Now()
	end(w.users()...)
	for _, p := range w.users() {
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			w.t.Errorf("%s ended with %s", p.name, p.cmd.ProcessState)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending = true
	var all []eventcheck.Witness
	for _, p := range w.all {
		if p.bad != nil {
			w.t.Errorf("%s: %v", p.name, p.bad)
		}
		all = append(all, p.witnesses()...)
	}
	w.checkOrphans(all)
	all = append(all, w.votes)
	for _, wrong := range eventcheck.Check(all, w.losses...) {
		w.t.Error(wrong)
	}
	w.checkActs()
	for _, wrong := range audit(w.reg.writes) {
		w.t.Error(wrong)
	}
	if w.asked[vote.Passed] == 0 {
		w.t.Errorf("no vote was won: %v", w.asked)
	}
}

// checkActs proves A1 from what the members' commands have noted themselves: a process has begun an action once, at most, with a yes, and not before
// the instant by more than the tolerance (the clocks of one machine are one clock). With the lock held.
func (w *world) checkActs() {
	agreed := map[string]eventcheck.Line{}
	for _, l := range w.votes.Lines {
		if l.Type == "verdict" && l.Verdict == vote.Passed && !l.At.IsZero() {
			agreed[l.Ballot] = l
		}
	}
	for _, p := range w.all { // a proposer that was told unknown does not know
		for _, l := range p.lines {
			if l.Type == "verdict" && l.Verdict == vote.Passed && !l.At.IsZero() {
				agreed[l.Ballot] = l
			}
		}
	}
	n := 0
	for _, m := range w.members {
		b, err := os.ReadFile(w.path("acts-" + m.name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Error(err)
		}
		begun := map[string]bool{}
		for text := range strings.Lines(string(b)) {
			var ballot, at string
			var pid int
			if _, err := fmt.Sscan(text, &ballot, &pid, &at); err != nil {
				w.t.Errorf("%s noted %q: %v", m.name, text, err)
				continue
			}
			sec, nano, _ := strings.Cut(at, ".")
			s, err1 := strconv.ParseInt(sec, 10, 64)
			ns, err2 := strconv.ParseInt(nano, 10, 64)
			if err := errors.Join(err1, err2); err != nil {
				w.t.Errorf("%s noted %q: %v", m.name, text, err)
				continue
			}
			n++
			v, ok := agreed[ballot]
			switch when := time.Unix(s, ns); {
			case !ok:
				w.t.Errorf("A1: %s began ballot %s, and nobody was told a yes", m.name, ballot)
			case when.Before(v.At.Add(-tolerance)):
				w.t.Errorf("A1: %s began ballot %s at %v, before its instant %v", m.name, ballot, when, v.At)
			}
			if k := fmt.Sprint(ballot, " ", pid); begun[k] {
				w.t.Errorf("A1: process %d of %s began ballot %s twice", pid, m.name, ballot)
			} else {
				begun[k] = true
			}
		}
	}
	if n == 0 {
		w.t.Errorf("no action was begun; outcomes %v", w.parts)
	}
}

// seen sums up what happened. Call it after leave.
func (w *world) seen(r *row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	generations := map[uint64]bool{}
	var terms []eventcheck.Holding
	for _, p := range w.all {
		for _, witness := range p.witnesses() {
			s, t := witness.Holdings()
			t = slices.DeleteFunc(t, func(h eventcheck.Holding) bool { return h.Begin.After(w.over) })
			for _, h := range s {
				generations[h.Grant.Generation] = true
			}
			if p.role != "worker" {
				terms = append(terms, t...)
			}
			r.terms += len(t)
		}
	}
	r.generations = len(generations)
	slices.SortFunc(terms, func(a, b eventcheck.Holding) int { return a.Begin.Compare(b.Begin) })
	for i, h := range terms[:max(len(terms)-1, 0)] {
		r.leaderless = max(r.leaderless, terms[i+1].Begin.Sub(h.End))
	}
	r.refused = w.reg.refused("")
	if o := w.idle.Longest; w.idle.Times > 0 {
		r.orphaned = fmt.Sprintf("%s of %s", o.Lasted().Round(10*time.Millisecond), o.Due.Sub(o.From).Round(10*time.Millisecond))
	}
	r.votes, r.parts = counted(w.asked), counted(w.parts)
}

// counted is how many there are of each.
func counted(of map[string]int) string {
	var l []string
	for _, k := range slices.Sorted(maps.Keys(of)) {
		l = append(l, fmt.Sprintf("%d %s", of[k], k))
	}
	return strings.Join(l, ", ")
}

// close leaves nothing behind, and tells what happened if the test has failed.
func (w *world) close() {
	w.mu.Lock()
	w.ending = true
	all := slices.Clone(w.all)
	w.mu.Unlock()
	for _, p := range all {
		_ = p.cmd.Process.Kill() // most have ended
	}
	for _, p := range all {
		<-p.exited
	}
	if w.ns != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = w.ns.Close(ctx) // the servers are gone
		cancel()
	}
	if w.nc != nil {
		w.nc.Close()
	}
	if w.reg != nil {
		w.reg.close()
	}
	if w.hub != nil {
		if err := w.hub.close(); err != nil {
			w.t.Error(err)
		}
	}
	w.report(all)
}

func (w *world) report(all []*process) {
	if *keep != "" {
		to := filepath.Join(*keep, strings.ReplaceAll(w.t.Name(), "/", "_"))
		for _, p := range all {
			_ = os.MkdirAll(to, 0o700) // what fails here is seen by whoever looks for it
			_ = os.WriteFile(filepath.Join(to, filepath.Base(p.errs)+".stdout"), []byte(strings.Join(p.raw, "")), 0o600)
		}
		for _, pattern := range []string{"*.stderr", "*.log", "*.conf"} {
			names, _ := filepath.Glob(w.path(pattern))
			for _, name := range names {
				if b, err := os.ReadFile(name); err == nil {
					_ = os.WriteFile(filepath.Join(to, filepath.Base(name)), b, 0o600)
				}
			}
		}
		if b, err := json.MarshalIndent(w.reg.writes, "", " "); err == nil {
			_ = os.WriteFile(filepath.Join(to, "register.json"), b, 0o600)
		}
	}
	if !w.t.Failed() {
		return
	}
	var told []string
	for _, p := range all {
		for i, l := range p.lines {
			if l.Type != "member-joined" && l.Type != "ballot" && l.Type != "verdict" {
				text := []rune(strings.TrimSpace(p.raw[i]))
				told = append(told, fmt.Sprintf("%s %s: %s", l.Time.Format("05.000000"), p.name, string(text[:min(len(text), 260)])))
			}
		}
	}
	slices.Sort(told)
	w.t.Logf("last lines:\n%s", strings.Join(told[max(0, len(told)-80):], "\n"))
	for _, p := range all {
		if b, err := os.ReadFile(p.errs); err == nil && len(b) > 0 {
			w.t.Logf("%s: %s", p.name, b[max(0, len(b)-1500):])
		}
	}
	for _, s := range w.servers {
		if b, err := os.ReadFile(w.path(s.name + ".log")); err == nil {
			w.t.Logf("%s: %s", s.name, b[max(0, len(b)-3000):])
		}
	}
}
