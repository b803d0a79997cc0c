// Command timers is a scheduler of as many processes as are started: each has some of the timers, and when one comes or goes only those that change hands
// pause, for milliseconds. Start it in three terminals, with the same arguments: go run ./examples/timers backup=10s mail=3s sync=2s report=5s
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/fence"
	"github.com/quorate/quorate/partition"
)

// A timer is due at every whole multiple of its interval, by the wall clock.
type timer struct {
	name  string
	every time.Duration
}

// schedule runs the timers that this process has, until ctx ends. Each due time is noted before it fires, so that it fires once only; if a timer was
// nobody's when it was due, as after a crash, whoever has it next fires it late.
func schedule(ctx context.Context, p *partition.Partition, timers []timer, notes *fence.KV, fire func(t timer, due time.Time)) error {
	return p.RunBuckets(ctx, func(ctx context.Context, b *partition.Bucket) error {
		var all sync.WaitGroup
		defer all.Wait()
		for _, t := range timers {
			if b.Owns(t.name) {
				all.Go(func() {
					for ctx.Err() == nil && b.Live() {
						if err := run(ctx, b, t, notes, fire); err != nil && ctx.Err() == nil {
							log.Printf("timer %s: %v: again in a second", t.name, err)
							time.Sleep(time.Second)
						}
					}
				})
			}
		}
		return nil
	})
}

// run is one timer for as long as its bucket is held.
func run(ctx context.Context, b *partition.Bucket, t timer, notes *fence.KV, fire func(t timer, due time.Time)) error {
	note, err := notes.Get(ctx, t.name)
	if err != nil && !errors.Is(err, fence.ErrNotFound) {
		return err
	}
	last, err := time.Parse(time.RFC3339Nano, string(note.Value))
	if err != nil {
		last = time.Now().Truncate(t.every) // it has never fired
	}
	// What was read is written again with this owner's token: from now on a former owner, however late, can note nothing, and does not fire.
	rev, err := notes.Update(b.Context(), t.name, []byte(last.Format(time.RFC3339Nano)), note.Revision, b)
	for err == nil {
		due := last.Add(t.every)
		if missed := time.Now().Truncate(t.every); missed.After(due) {
			due = missed // of several the last
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(due)):
		}
		if rev, err = notes.Update(b.Context(), t.name, []byte(due.Format(time.RFC3339Nano)), rev, b); err == nil {
			fire(t, due)
			last = due
		}
	}
	return err
}

func main() {
	var timers []timer
	for _, a := range os.Args[1:] {
		name, text, _ := strings.Cut(a, "=")
		every, err := time.ParseDuration(text)
		if err != nil || every <= 0 {
			log.Fatalf("%s: write NAME=INTERVAL, as in backup=10s", a)
		}
		timers = append(timers, timer{name, every})
	}
	if len(timers) == 0 {
		log.Fatal("which timers? Write NAME=INTERVAL for each, as in backup=10s mail=3s")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := take(ctx, timers); err != nil && ctx.Err() == nil {
		log.Print(err)
	}
}

// take takes part in the group of schedulers until ctx ends.
func take(ctx context.Context, timers []timer) error {
	host, err := embedded.OpenHost(ctx, embedded.HostOptions{}) // the first process serves NATS, the others use it
	if err != nil {
		return err
	}
	defer host.Close(context.Background())
	nc, err := host.Connect(ctx, quorate.Options(0)...)
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if _, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "timers"}); err != nil {
		return err
	}
	notes, err := fence.NewKV(ctx, js, "timers", fence.KVConfig{})
	if err != nil {
		return err
	}
	ns, err := quorate.Open(ctx, nc, quorate.Config{})
	if err != nil {
		return err
	}
	defer ns.Close(context.Background())
	g, err := coord.Join(ctx, ns, "timers", coord.Config{})
	if err != nil {
		return err
	}
	p, err := partition.Join(ctx, g, partition.Config{Buckets: 64})
	if err != nil {
		return err
	}
	return schedule(ctx, p, timers, notes, func(t timer, due time.Time) {
		fmt.Printf("%s: %s of %s\n", g.ID(), t.name, due.Format(time.TimeOnly))
	})
}
