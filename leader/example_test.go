package leader_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/leader"
)

// connect is what a process does first: connect, and open a namespace.
func connect(ctx context.Context, s *embedded.Server) (*quorate.Namespace, func()) {
	nc, err := nats.Connect(s.URL(), quorate.Options(0)...)
	if err != nil {
		log.Fatal(err)
	}
	ns, err := quorate.Open(ctx, nc, quorate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	return ns, func() {
		_ = ns.Close(context.Background())
		nc.Close()
	}
}

// server is a NATS for an example.
func server(ctx context.Context) (*embedded.Server, func()) {
	dir, err := os.MkdirTemp("", "quorate-example-")
	if err != nil {
		log.Fatal(err)
	}
	s, err := embedded.Start(ctx, embedded.Options{StoreDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	return s, func() {
		_ = s.Close(context.Background())
		_ = os.RemoveAll(dir)
	}
}

// The leader does the work; when it stops, or its process dies, another goes on.
func ExampleElector_Run() {
	ctx := context.Background()
	s, stop := server(ctx)
	defer stop()

	var last uint64
	for _, id := range []string{"first", "second"} {
		ns, closeAll := connect(ctx, s)
		e, err := leader.New(ns, "reports", leader.Config{ID: id})
		if err != nil {
			log.Fatal(err)
		}
		err = e.Run(ctx, func(ctx context.Context, t *leader.Term) error {
			// Work until ctx ends. Write with the token, so that a late write can be told from the next leader's.
			fmt.Printf("%s leads, live %v, with a higher token than before: %v\n", id, t.Live(), t.Token() > last)
			last = t.Token()
			return nil // done: the leadership is released
		})
		if err != nil {
			log.Fatal(err)
		}
		closeAll()
	}
	// Output:
	// first leads, live true, with a higher token than before: true
	// second leads, live true, with a higher token than before: true
}

// A job that one process at a time is to do, now or not at all.
func ExampleElector_TryCampaign() {
	ctx := context.Background()
	s, stop := server(ctx)
	defer stop()
	one, closeOne := connect(ctx, s)
	defer closeOne()
	two, closeTwo := connect(ctx, s)
	defer closeTwo()

	a, err := leader.New(one, "cleanup", leader.Config{ID: "a"})
	if err != nil {
		log.Fatal(err)
	}
	b, err := leader.New(two, "cleanup", leader.Config{ID: "b"})
	if err != nil {
		log.Fatal(err)
	}
	term, err := a.TryCampaign(ctx)
	fmt.Println("a:", err)
	_, err = b.TryCampaign(ctx)
	fmt.Println("b is too late:", errors.Is(err, leader.ErrHeld))
	if err := term.Resign(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("a resigned:", context.Cause(term.Context()))
	_, err = b.TryCampaign(ctx)
	fmt.Println("b:", err)
	// Output:
	// a: <nil>
	// b is too late: true
	// a resigned: resigned
	// b: <nil>
}

// Whoever wants to know where the leader is reads what it says about itself.
func ExampleElector_Watch() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, stop := server(ctx)
	defer stop()
	ns, closeAll := connect(ctx, s)
	defer closeAll()

	e, err := leader.New(ns, "api", leader.Config{ID: "node-1", Value: "http://10.0.0.1:8080"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := e.Campaign(ctx); err != nil {
		log.Fatal(err)
	}
	for state, err := range e.Watch(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(state.Holder, state.Value)
		break
	}
	// Output:
	// node-1 http://10.0.0.1:8080
}
