//go:build scenarios && linux

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate/internal/eventcheck"
	"github.com/quorate/quorate/testenv"
)

// A scenario is a fault. When it is called all is well; when it returns the fault is over, and it says what shows that it happened. It fails
// the test if it did not.
type scenario struct {
	name    string
	fault   string
	run     func(w *world) (evidence string)
	proxied bool              // links stand between the processes and NATS
	disk    string            // size of the file system of each server's store; "": that of the machine
	lease   time.Duration     // 0: that of the kind
	not     map[string]string // kinds that it means nothing for, and why
}

var noElection = map[string]string{"single": "one replica has no election"}

var scenarios = []*scenario{
	{name: "kill-leader", fault: "kill -9 of who leads", run: killLeader},
	{name: "kill-all", fault: "kill -9 of everything at once, NATS too; started again", run: killAll},
	{name: "stop-leader", fault: "SIGSTOP of who leads past its lease, then CONT", run: stopLeader},
	{name: "stop-member", fault: "SIGSTOP of a plain member past its lease, then CONT", run: stopMember},
	{name: "drop-in", fault: "packets to who leads dropped, healed", run: dropping("INPUT")},
	{name: "drop-out", fault: "packets from who leads dropped, healed", run: dropping("OUTPUT")},
	{name: "drop-both", fault: "packets both ways dropped, healed", run: dropping("INPUT", "OUTPUT")},
	{name: "lost-acks", fault: "acknowledgements to who leads swallowed, its writes land", run: lostAcks, proxied: true},
	{name: "step-down", fault: "the stream's leader steps down, twice", run: streamStepDown, not: noElection},
	{name: "kill-server", fault: "kill -9 of the server that leads the stream, started again", run: killServer},
	{name: "stop-server", fault: "SIGSTOP of the server that leads the stream, then CONT", run: stopServer},
	{name: "cut-server", fault: "packets between that server and the others dropped, healed", run: cutServer, not: map[string]string{"single": "there are no others"}},
	{name: "nats-away", fault: "all of NATS ended for two leases, started again", run: natsAway},
	{name: "bucket-gone", fault: "the bucket deleted, made again", run: bucketGone},
	{name: "upgrade", fault: "each member ended and started as of a later release, the leader in the midst; and back", run: upgrade, not: map[string]string{"cluster": "the same"}},
	{name: "come-and-go", fault: "200 members in ten processes join and leave at random; one process killed, one stopped, the leader steps down", run: comeAndGo, lease: 2 * time.Second, not: map[string]string{"cluster": "the same"}},
	{name: "disk-full", fault: "the store's disk full (8 MB tmpfs), freed", run: diskFull, disk: "8m"},
}

// play is one scenario on one kind of servers.
func play(t *testing.T, s *scenario, k kind, r *row) {
	w := newWorld(t, s, k)
	r.fault, r.result = s.fault, "FAILED"
	w.populate()
	w.awaitWell("at first")
	w.well0 = time.Now()
	stopVotes := w.poll()
	defer func() { // also when the test is given up
		if stopVotes != nil {
			stopVotes()
		}
	}()
	var last string
	for i := range *rounds {
		over := w.agree("an action over the fault", 2*k.lease) // what happens now happens between a yes and its instant
		w.asking.Go(func() { w.outcome(over) })
		r.evidence = s.run(w)
		w.awaitWell("after the fault")
		w.mu.Lock()
		won := w.asked["yes"]
		w.mu.Unlock()
		w.await("a vote is won after the fault", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.asked["yes"] > won
		})
		w.act("an action after the fault")
		last = fmt.Sprintf("round %d of %d: %s", i+1, *rounds, r.evidence)
	}
	stopVotes()
	stopVotes = nil
	w.leave()
	w.seen(r)
	if !t.Failed() {
		r.result = "ok"
	}
	t.Logf("%s; %d terms, %d generations, longest without a leader %s, an item without an owner: %d times, %v, nearest to its bound: %v; votes: %s (slowest %s), parts in actions: %s, refused writes: %d", last, r.terms, r.generations,
		r.leaderless.Round(time.Millisecond), w.idle.Times, w.idle.Longest, w.idle.Nearest, r.votes, w.slowest.Round(time.Millisecond), r.parts, r.refused)
}

func names(ps []*process) string {
	var l []string
	for _, p := range ps {
		l = append(l, p.name)
	}
	return strings.Join(l, ", ")
}

func killLeader(w *world) string {
	victims := w.victims()
	evidence := kill(victims...)
	w.awaitWell("without the killed", victims...)
	for _, p := range victims {
		w.must(p.start())
	}
	return evidence
}

func killAll(w *world) string {
	at := time.Now()
	evidence := kill(append(w.users(), w.servers...)...)
	for _, p := range w.servers {
		w.must(p.start())
	}
	w.await("the servers take writes", w.ready)
	for _, p := range w.users() {
		w.must(p.start())
	}
	// They have to come back first: their former selves are waited for (M2).
	w.natsTrouble("all killed", at, w.bound.Timings.MemberTimeout)
	_, what, _ := strings.Cut(evidence, " dead")
	return fmt.Sprintf("%d processes dead%s", len(w.users())+len(w.servers), what)
}

// stopped stops processes until the others have taken over, and continues them.
func stopped(w *world, victims ...*process) string {
	evidence := stop(victims...)
	began := time.Now() // they stand still by now
	w.awaitWell("without the stopped", victims...)
	took := time.Since(began)
	before := map[*process]int{}
	w.mu.Lock()
	for _, p := range victims {
		before[p] = len(p.lines)
	}
	w.mu.Unlock()
	cont(victims...)
	// L3, P3: the first word of each is that it holds nothing, and has not for a while. What it had stamped before it stood still, and could not
	// write any more, is no word of afterwards.
	for _, p := range victims {
		first := before[p]
		w.await(p.name+" says that its rights are over", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			for first < len(p.lines) && p.lines[first].Time.Before(began) {
				first++
			}
			return first < len(p.lines)
		})
		w.mu.Lock()
		if l := p.lines[first]; (l.Type != "leader-lost" && l.Type != "revoked") || !l.Until.Before(l.Time) {
			w.t.Errorf("L3: first line of %s after the pause: %s", p.name, p.raw[first])
		}
		w.mu.Unlock()
	}
	return fmt.Sprintf("%s for %s", evidence, took.Round(100*time.Millisecond))
}

func stopLeader(w *world) string {
	victims := w.victims()
	refused := refusal(w, victims)
	evidence := stopped(w, victims...)
	refused()
	return evidence
}

// refusal gives a function that waits until the register has refused a write of each worker once more (R1): it goes on with its old token.
func refusal(w *world, victims []*process) func() {
	before := map[*process]int{}
	for _, p := range victims {
		before[p] = w.reg.refused(p.name)
	}
	return func() {
		w.t.Helper()
		for _, p := range victims {
			if p.role == "worker" {
				w.await("a late write of "+p.name+" is refused", func() bool { return w.reg.refused(p.name) > before[p] })
			}
		}
	}
}

func stopMember(w *world) string {
	lead := w.victims()[0]
	i := slices.IndexFunc(w.members, func(p *process) bool { return p != lead })
	return stopped(w, w.members[i])
}

// dropping drops packets of who leads, until the others have taken over.
func dropping(chains ...string) func(w *world) string {
	return func(w *world) string {
		victims := w.victims()
		refused := refusal(w, victims)
		var rules []*rule
		// What it sends may arrive while it hears nothing, until it notices.
		w.silenced("cut off", time.Now(), victims, w.bound.TermStops)
		for _, p := range victims {
			for _, c := range chains {
				rules = append(rules, drop(w.t, p.net, c))
			}
		}
		began := time.Now()
		w.awaitWell("without those cut off", victims...)
		// It has been over for them too, by their own clocks.
		w.await("those cut off hold nothing", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return !slices.ContainsFunc(victims, func(p *process) bool { return p.term() != nil || p.share() != nil })
		})
		took := time.Since(began)
		refused() // the register is not behind NATS
		var said []string
		for _, r := range rules {
			n := r.packets(w.t)
			if n == 0 {
				w.t.Errorf("the rule %q has dropped nothing", strings.Join(r.words, " "))
			}
			said = append(said, fmt.Sprint(n))
			r.remove(w.t)
		}
		return fmt.Sprintf("%s: %s packets dropped in %s", names(victims), strings.Join(said, " + "), took.Round(100*time.Millisecond))
	}
}

// lostAcks: all writes land, nobody hears of it. Who leads may go on doing so, for it reads what it has written (L4, R6).
func lostAcks(w *world) string {
	var evidence string
	w.await("acknowledgements were swallowed", func() bool {
		evidence = swallowAcks(w)
		return evidence != ""
	})
	return evidence
}

// swallowAcks says "" if one of the victims was not told of too few writes to prove anything: a busy machine had ended its term before.
func swallowAcks(w *world) string {
	victims := w.victims()
	var said []string
	var heal []func()
	count := make([]chan struct{}, len(victims))
	for i, p := range victims {
		eaten := make(chan struct{}, 1<<20)
		count[i] = eaten
		heal = append(heal, p.link.Filter(func(f *testenv.Frame) testenv.Verdict {
			if !f.IsAck() {
				return testenv.Pass
			}
			select {
			case eaten <- struct{}{}:
			default:
			}
			return testenv.Drop
		}))
	}
	at := time.Now()
	pass(3 * w.k.lease)
	enough := true
	for i := range victims {
		enough = enough && len(count[i]) > 3
		said = append(said, fmt.Sprintf("%d", len(count[i])))
	}
	kept := w.leads(w.members) == victims[0] && w.leads(w.workers) == victims[1]
	for _, h := range heal {
		h()
	}
	w.trouble("acknowledgements to "+victims[0].name+" swallowed", at, time.Now(), w.bound.ReassignmentLeader) // it may lose its term by that
	if !enough {
		w.awaitWell("for another try")
		return ""
	}
	return fmt.Sprintf("%s: %s acknowledgements swallowed in %s; still leads: %t", names(victims), strings.Join(said, " + "), 3*w.k.lease, kept)
}

func streamStepDown(w *world) string {
	var from, to *process
	var path []string
	at := time.Now()
	for range 2 {
		w.await("the stream has a leader", func() bool { from = w.streamLeader(); return from != nil })
		if len(path) == 0 {
			path = append(path, from.name)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		m, err := w.nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil)
		cancel()
		if err != nil || !strings.Contains(string(m.Data), `"success":true`) {
			w.t.Fatalf("step-down: %v %+v", err, m)
		}
		w.await("the stream has another leader", func() bool { to = w.streamLeader(); return to != nil && to != from })
		path = append(path, to.name)
	}
	w.await("the servers take writes", w.ready)
	w.natsTrouble("the stream's leader stepped down", at, 0)
	return "stream leaders " + strings.Join(path, ", ")
}

// another waits until another server leads the stream.
func another(w *world, than *process) string {
	if w.k.servers == 1 {
		return ""
	}
	var to *process
	w.await("the stream has another leader", func() bool { to = w.streamLeader(); return to != nil && to != than })
	return fmt.Sprintf("; stream leader %s, then %s", than.name, to.name)
}

func leadingServer(w *world) (s *process) {
	w.await("the stream has a leader", func() bool { s = w.streamLeader(); return s != nil })
	return s
}

func killServer(w *world) string {
	s := leadingServer(w)
	at := time.Now()
	evidence := kill(s) + another(w, s)
	if w.k.servers > 1 {
		w.awaitWell("without " + s.name)
	}
	w.must(s.start())
	w.await("the servers take writes", w.ready)
	w.natsTrouble(s.name+" killed", at, 0)
	return evidence
}

func stopServer(w *world) string {
	s := leadingServer(w)
	evidence := stop(s)
	began := time.Now()
	if w.k.servers > 1 {
		evidence += another(w, s)
		w.awaitWell("without " + s.name)
	} else {
		w.await("nobody holds anything", w.nobody)
	}
	took := time.Since(began)
	cont(s)
	w.await("the servers take writes", w.ready)
	w.natsTrouble(s.name+" stopped", began, 0)
	return fmt.Sprintf("%s for %s", evidence, took.Round(100*time.Millisecond))
}

// cutServer cuts the stream's leader off from the other servers, and not from its clients: they stay connected to it, and it can do nothing for
// them. So not all is well before it is healed; what they held must be over when the others go on.
func cutServer(w *world) string {
	s := leadingServer(w)
	nc, err := nats.Connect(w.url(s), nats.Timeout(patience))
	w.must(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	w.must(err)
	var rules []*rule
	for _, o := range w.servers {
		if o != s {
			rules = append(rules, drop(w.t, s.net, "INPUT", "-s", o.net.addr), drop(w.t, s.net, "OUTPUT", "-d", o.net.addr))
		}
	}
	began := time.Now()
	var to *process
	w.await("the stream has another leader", func() bool { to = w.streamLeaderBy(js); return to != nil && to != s })
	pass(3 * w.k.lease) // those who are connected to the others take over what they can
	took := time.Since(began)
	in, out := rules[0].packets(w.t), rules[1].packets(w.t)
	if in == 0 || out == 0 {
		w.t.Errorf("%d packets dropped on their way in, %d out", in, out)
	}
	for _, r := range rules {
		r.remove(w.t)
	}
	w.await("the servers take writes", w.ready)
	w.natsTrouble(s.name+" cut off", began, 0)
	return fmt.Sprintf("%d + %d packets dropped in %s; stream leader %s, then %s", in, out, took.Round(100*time.Millisecond), s.name, to.name)
}

func natsAway(w *world) string {
	at := time.Now()
	end(w.servers...)
	began := time.Now()
	pass(2 * w.k.lease)
	w.await("nobody holds anything", w.nobody)
	for _, s := range w.servers {
		if s.cmd.ProcessState == nil {
			w.t.Errorf("%s runs", s.name)
		}
		w.must(s.start())
	}
	took := time.Since(began)
	w.await("the servers take writes", w.ready)
	w.natsTrouble("NATS away", at, 0)
	return fmt.Sprintf("%s ended, nobody held anything, for %s", names(w.servers), took.Round(100*time.Millisecond))
}

func bucketGone(w *world) string {
	before := w.info()
	for before == nil {
		before = w.info()
	}
	at := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w.must(w.js.DeleteStream(ctx, stream))
	// The documented exception: terms may overlap for a lease.
	w.mu.Lock()
	w.losses = append(w.losses, eventcheck.Loss{From: at, To: time.Now().Add(w.k.lease)})
	w.mu.Unlock()
	var took time.Duration
	w.await("there is another bucket", func() bool {
		i := w.info()
		took = time.Since(at)
		return i != nil && i.Created.After(before.Created) && i.Config.FirstSeq > before.State.LastSeq
	})
	w.natsTrouble("the bucket gone", at, w.bound.Timings.MemberTimeout) // S10: nothing is granted before
	return fmt.Sprintf("created anew %s later, first sequence above the last one", took.Round(10*time.Millisecond))
}

// diskFull fills the disk of the server that leads the stream. What the server does about it is its own business; an operator frees the disk
// and starts the server again.
func diskFull(w *world) string {
	s := leadingServer(w)
	path := filepath.Join(w.path("store-"+s.name), "fill")
	filled := time.Now()
	n, err := fill(path)
	if !errors.Is(err, syscall.ENOSPC) {
		w.t.Fatalf("fill the disk: %d bytes, %v; want %v", n, err, syscall.ENOSPC)
	}
	began := time.Now()
	log := w.path(s.name + ".log")
	w.await("the server has met the full disk", func() bool {
		if _, err := fill(path); err != nil && !errors.Is(err, syscall.ENOSPC) { // what the server frees is taken too
			w.t.Fatal(err)
		}
		b, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(b), syscall.ENOSPC.Error())
	})
	if w.k.servers > 1 {
		pass(2 * w.k.lease)
	} else {
		w.await("nobody leads", func() bool { return w.leads(w.members) == nil })
	}
	took := time.Since(began)
	w.must(os.Remove(path))
	end(s)
	w.must(s.start())
	w.await("the servers take writes", w.ready)
	w.natsTrouble("a disk full", filled, 0)
	return fmt.Sprintf("ENOSPC after %d KB and in the log of %s, for %s; freed, restarted", n>>10, s.name, took.Round(100*time.Millisecond))
}

// fill writes until nothing fits any more.
func fill(path string) (n int64, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		m, err := f.Write(make([]byte, size))
		n += int64(m)
		if errors.Is(err, syscall.ENOSPC) && size > 1 {
			size /= 4 // to the last byte
			continue
		}
		if err != nil {
			return n, err
		}
		if n > math.MaxInt32 {
			return n, errors.New("the disk has no end")
		}
	}
	return n, syscall.ENOSPC
}
