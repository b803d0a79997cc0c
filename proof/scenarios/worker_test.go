//go:build scenarios && linux

package scenarios

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
)

const election = "register"

// serverMain is a NATS server as a process of its own.
func serverMain(config string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "server:", err)
		return 1
	}
	o, err := server.ProcessConfigFile(config)
	if err != nil {
		return fail(err)
	}
	s, err := server.NewServer(o) // it takes the signals itself, as nats-server does
	if err != nil {
		return fail(err)
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	return 0
}

// A worker campaigns, writes its token while it leads, and goes on for a while when it does not, as a process does that has not
// noticed. It prints event lines like those of `quorate watch --election`.
type worker struct {
	id   string
	hold time.Duration
	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex // of the connection
	printer
}

func workerMain() int {
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 1
	}
	return 0
}

func work() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	lease, err := time.ParseDuration(os.Getenv("WORKER_LEASE"))
	if err != nil {
		return err
	}
	t := quorate.Derive(lease)
	w := &worker{id: os.Getenv("WORKER_ID"), hold: t.Lease - t.Margin}
	if w.conn, err = net.Dial("unix", os.Getenv("WORKER_REGISTER")); err != nil {
		return err
	}
	defer w.conn.Close()
	w.in = bufio.NewReader(w.conn)
	nc, err := nats.Connect(os.Getenv("NATS_URL"), append(quorate.Options(lease), nats.RetryOnFailedConnect(true))...)
	if err != nil {
		return err
	}
	defer nc.Close()
	ns, err := quorate.Open(ctx, nc, quorate.Config{Lease: lease})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = ns.Close(ctx) // the process ends
	}()
	e, err := leader.New(ns, election, leader.Config{ID: w.id})
	if err != nil {
		return err
	}
	var late sync.WaitGroup
	defer late.Wait()
	return e.Run(ctx, func(work context.Context, t *leader.Term) error {
		w.term(line{Election: election, Self: w.id, Leader: w.id, LeaseMS: w.hold.Milliseconds()}, t, func() { w.write(work, t) })
		<-work.Done()
		late.Go(func() { w.late(ctx, t) })
		return nil
	})
}

// write writes as long as the term is live. Between the question and the write anything may happen.
func (w *worker) write(ctx context.Context, t *leader.Term) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && t.Live() {
		w.ask(write{Worker: w.id, Token: t.Token()})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// late goes on with the token of a term that is over, until it is refused.
func (w *worker) late(ctx context.Context, t *leader.Term) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 1200 { // a minute: another must lead first
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !w.ask(write{Worker: w.id, Token: t.Token(), Late: true}) {
			return
		}
	}
}

func (w *worker) ask(r write) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, err := json.Marshal(r)
	if err == nil {
		_, err = w.conn.Write(append(b, '\n'))
	}
	var answer string
	if err == nil {
		answer, err = w.in.ReadString('\n')
	}
	if err != nil {
		os.Exit(1) // the test is gone
	}
	return answer == "true\n"
}

// A line is an event line, as docs/events.md has it.
type line struct {
	V          int      `json:"v"`
	Time       string   `json:"time"`
	Type       string   `json:"type"`
	Group      string   `json:"group,omitempty"`
	Election   string   `json:"election,omitempty"`
	Self       string   `json:"self"`
	Member     string   `json:"member,omitempty"`
	Leader     string   `json:"leader,omitempty"`
	Token      uint64   `json:"token,omitempty"`
	Index      int      `json:"index"`
	Total      int      `json:"total,omitempty"`
	Generation uint64   `json:"generation,omitempty"`
	LeaseMS    int64    `json:"lease_ms,omitempty"`
	Items      []string `json:"items,omitempty"`
	Reason     string   `json:"reason,omitempty"`
	Until      string   `json:"until,omitempty"`
}

// The times of lines have nine decimals always.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// now, as the end of what was held, is the time of the line.
const now = "now"

// A printer prints one line at a time.
type printer struct{ out sync.Mutex }

// print prints a line, if what it says is still true once it is stamped. live may be nil.
func (p *printer) print(l line, live func() bool) bool {
	p.out.Lock()
	defer p.out.Unlock()
	l.V, l.Time = 1, stamp(time.Now())
	if l.Until == now {
		l.Until = l.Time
	}
	b, err := json.Marshal(l)
	if err != nil || live != nil && !live() {
		return false
	}
	if _, err := os.Stdout.Write(append(b, '\n')); err != nil {
		os.Exit(1) // the test is gone
	}
	return true
}

// term tells of a term, from when to when, and works meanwhile. Its end is told before it is released: now, if it is still held.
func (p *printer) term(l line, t *leader.Term, work func()) {
	l.Type, l.Token = "leader-elected", t.Token()
	if !p.print(l, t.Live) {
		return
	}
	work()
	l.Type, l.LeaseMS, l.Reason, l.Until = "leader-lost", 0, "resigned", now
	if p.print(l, t.Live) {
		return
	}
	if t.Context().Err() == nil && t.Until().After(time.Now()) {
		<-t.Context().Done() // not by its deadline: its owner is about to say when
	}
	until := t.Until()
	if l.Until = stamp(until); until.IsZero() || until.After(time.Now()) {
		l.Until = now
	}
	l.Reason = "expired"
	if cause := context.Cause(t.Context()); cause != nil {
		l.Reason = cause.Error()
	}
	p.print(l, nil)
}
