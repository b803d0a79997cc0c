package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// A consumer is one process of the example.
type consumer struct {
	ns   *quorate.Namespace
	g    *coord.Group
	done chan error
	dead bool // under the log's lock: what it does from now on has not happened
}

// A log of what was handled, in the order in which it was.
type handled struct {
	t     *testing.T
	ctx   context.Context // of all processes
	all   sync.WaitGroup
	mu    sync.Mutex
	last  map[string]int       // by key
	busy  map[int]*consumer    // by bucket: who is in handle
	who   map[string]*consumer // by key: who handled the last
	n     int
	hand  int // how often another process handled a key than before
	twice int
}

func (h *handled) handler(c *consumer) func(*partition.Bucket, jetstream.Msg) error {
	return func(b *partition.Bucket, m jetstream.Msg) error {
		key := m.Headers().Get("Key")
		number, err := strconv.Atoi(string(m.Data()))
		if err != nil {
			return err
		}
		h.mu.Lock()
		if c.dead {
			h.mu.Unlock()
			return errors.New("dead") // nor is it acknowledged
		}
		if o := h.busy[b.N]; o != nil && !o.dead {
			h.t.Errorf("bucket %d: two handle it at once", b.N)
		}
		h.busy[b.N] = c
		switch last := h.last[key]; {
		case number == last+1:
			h.n++
		case number == last && last > 0: // it was not acknowledged
			h.twice++
		default:
			h.t.Errorf("key %s: number %d after %d", key, number, last)
		}
		if h.who[key] != nil && h.who[key] != c {
			h.hand++
		}
		h.last[key], h.who[key] = number, c
		h.mu.Unlock()
		time.Sleep(rand.N(3 * time.Millisecond))
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.busy[b.N] == c {
			delete(h.busy, b.N)
		}
		return nil
	}
}

func (h *handled) start(e *testenv.Env, id string) *consumer {
	h.t.Helper()
	ns := e.Namespace()
	g, err := coord.Join(h.t.Context(), ns, "orders", coord.Config{ID: id})
	if err != nil {
		h.t.Fatal(err)
	}
	p, err := partition.Join(h.t.Context(), g, partition.Config{Buckets: 64, Hash: partition.HashNATS})
	if err != nil {
		h.t.Fatal(err)
	}
	js, err := jetstream.New(e.Conn(ns))
	if err != nil {
		h.t.Fatal(err)
	}
	c := &consumer{ns: ns, g: g, done: make(chan error, 1)}
	h.all.Go(func() { c.done <- consume(h.ctx, p, js, h.handler(c)) })
	return c
}

// Messages of fifty keys, while processes come, leave and are killed: each key's in their order, none lost, no bucket with two at once.
func TestOrder(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		const keys, each = 50, 60
		ctx, cancel := context.WithCancel(t.Context())
		h := &handled{t: t, ctx: ctx, last: map[string]int{}, busy: map[int]*consumer{}, who: map[string]*consumer{}}
		js, err := jetstream.New(e.Conn(e.Namespace()))
		if err != nil {
			t.Fatal(err)
		}
		memory := stream
		memory.Storage = jetstream.MemoryStorage
		if _, err := js.CreateStream(t.Context(), memory); err != nil {
			t.Fatal(err)
		}
		published := make(chan error, 1)
		go func() {
			for n := 1; n <= each; n++ {
				for k := range keys {
					key := fmt.Sprint("customer-", k)
					m := newMsg(key, n)
					if _, err := js.PublishMsg(t.Context(), m); err != nil {
						published <- err
						return
					}
				}
				time.Sleep(time.Second)
			}
			published <- nil
		}()
		a, b, c := h.start(e, "a"), h.start(e, "b"), h.start(e, "c")
		time.Sleep(10 * time.Second)
		d := h.start(e, "d") // a join
		time.Sleep(10 * time.Second)
		if err := b.g.Leave(t.Context()); err != nil { // a leave
			t.Fatal(err)
		}
		<-b.done
		time.Sleep(10 * time.Second)
		for _, x := range []*consumer{a, d} { // two kills, the first is the leader's
			h.mu.Lock()
			x.dead = true
			h.mu.Unlock()
			e.Kill(x.ns)
			time.Sleep(12 * time.Second)
			h.start(e, fmt.Sprint("e", x.g.ID()))
		}
		e.Pause(c.ns) // and one that stands still past its lease
		time.Sleep(8 * time.Second)
		e.Resume(c.ns)
		if err := <-published; err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Second)
		cancel()
		h.all.Wait()
		if h.n != keys*each {
			t.Errorf("%d messages were handled, want %d", h.n, keys*each)
		}
		t.Logf("%d messages, %d of them twice, %d hand-overs of a key", h.n, h.twice, h.hand)
		if h.hand < keys/2 {
			t.Errorf("keys went from hand to hand %d times only", h.hand)
		}
	})
}

func newMsg(key string, n int) *nats.Msg {
	m := nats.NewMsg("orders." + key)
	m.Header.Set("Key", key)
	m.Data = []byte(strconv.Itoa(n))
	return m
}

// The example is to stay short: what takes more belongs in a package.
func TestShort(t *testing.T) {
	text, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte("\n")); n > 80 {
		t.Errorf("main.go has %d lines, at most 80 are wanted", n)
	}
}
