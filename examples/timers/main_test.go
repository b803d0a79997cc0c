package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/fence"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Schedulers come, leave, are killed and stand still: no due time of any timer fires twice, and whatever was due fires, or, while a timer was nobody's, the last of
// what was missed.
func TestTimers(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		var timers []timer
		for i := range 24 {
			timers = append(timers, timer{fmt.Sprint("t", i), time.Duration(1+i%4) * 250 * time.Millisecond})
		}
		type firing struct{ due, at time.Time }
		var mu sync.Mutex
		fired := map[string][]firing{}
		dead := map[string]bool{}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		start := func(id string) (ns *quorate.Namespace, g *coord.Group) {
			t.Helper()
			ns = e.Namespace()
			js, err := jetstream.New(e.Conn(ns))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "timers", Storage: jetstream.MemoryStorage}); err != nil {
				t.Fatal(err)
			}
			notes, err := fence.NewKV(ctx, js, "timers", fence.KVConfig{})
			if err != nil {
				t.Fatal(err)
			}
			g, err = coord.Join(ctx, ns, "timers", coord.Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			p, err := partition.Join(ctx, g, partition.Config{Buckets: 64})
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				_ = schedule(ctx, p, timers, notes, func(x timer, due time.Time) { // it ends with the member
					mu.Lock()
					defer mu.Unlock()
					if !dead[id] {
						fired[x.name] = append(fired[x.name], firing{due, time.Now()})
					}
				})
			})
			return ns, g
		}
		began := time.Now()
		a, _ := start("a")
		_, b := start("b")
		c, _ := start("c")
		time.Sleep(10 * time.Second)
		start("d")
		time.Sleep(10 * time.Second)
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		mu.Lock()
		dead["a"] = true
		mu.Unlock()
		e.Kill(a) // it leads: what it had is another's when its lease has run out
		time.Sleep(25 * time.Second)
		e.Pause(c)
		time.Sleep(12 * time.Second)
		e.Resume(c)
		time.Sleep(15 * time.Second)
		cancel()
		all.Wait()

		mu.Lock()
		defer mu.Unlock()
		late, missed := 0, 0
		for _, x := range timers {
			l := fired[x.name]
			if len(l) == 0 {
				t.Errorf("%s has never fired", x.name)
				continue
			}
			for i, f := range l {
				if !f.due.Equal(f.due.Truncate(x.every)) || f.at.Before(f.due) {
					t.Errorf("%s fired at %v for %v", x.name, f.at, f.due)
				}
				if f.at.Sub(f.due) > 100*time.Millisecond {
					late++
				}
				if i == 0 {
					continue
				}
				switch gap := f.due.Sub(l[i-1].due); {
				case gap <= 0:
					t.Errorf("%s fired for %v after it had for %v", x.name, f.due, l[i-1].due)
				case gap > x.every:
					missed++
					if gap > 20*time.Second {
						t.Errorf("%s was not fired for %v", x.name, gap)
					}
				}
			}
			if first := l[0].due.Sub(began); first > 10*time.Second {
				t.Errorf("%s fired first after %v", x.name, first)
			}
		}
		t.Logf("%d late, %d gaps", late, missed)
		if late == 0 || missed == 0 {
			t.Error("nobody was late though processes were killed")
		}
	})
}
