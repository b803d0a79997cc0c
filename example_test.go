package quorate_test

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

// A namespace is opened over any connection; what is missing at the server is named.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "quorate-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := embedded.Start(ctx, embedded.Options{StoreDir: dir}) // a NATS for this example: yours is at a URL
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(context.Background())

	nc, err := nats.Connect(s.URL(), quorate.Options(0)...)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	ns, err := quorate.Open(ctx, nc, quorate.Config{Namespace: "billing", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("works:", ns.Check(ctx))
	fmt.Println("renews each", ns.Timings().Renew)

	e, err := leader.New(ns, "reports", leader.Config{ID: "a"})
	if err != nil {
		log.Fatal(err)
	}
	term, err := e.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}
	_ = ns.Close(ctx) // resigns and leaves all that was opened through it; the connection stays open
	fmt.Println("closed, and resigned:", errors.Is(context.Cause(term.Context()), quorate.ErrResigned), "connected:", nc.IsConnected())
	// Output:
	// works: <nil>
	// renews each 500ms
	// closed, and resigned: true connected: true
}

// What follows from a lease, before anything is started: how soon a crashed leader is followed, and whether a leader survives that a NATS of three servers
// elects a leader of its own.
func ExampleExplain() {
	for _, lease := range []time.Duration{quorate.DefaultLease, 15 * time.Second} {
		e, err := quorate.Explain(quorate.Derive(lease), quorate.Situation{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("lease %v: a crashed leader is usually followed in %v; leaders survive an election of NATS: %v\n", lease, e.CrashUsual, e.SurvivesElection)
	}
	// Output:
	// lease 3s: a crashed leader is usually followed in 3s; leaders survive an election of NATS: false
	// lease 15s: a crashed leader is usually followed in 15s; leaders survive an election of NATS: true
}

// An audit of who leads, by hooks of one's own. Package metrics has hooks for Prometheus, package tracing for OpenTelemetry.
func ExampleHooks() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "quorate-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := embedded.Start(ctx, embedded.Options{StoreDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(context.Background())
	nc, err := nats.Connect(s.URL(), quorate.Options(0)...)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()

	audit := quorate.Hooks{Event: func(e quorate.Event) { // one after the other, and it may take its time
		switch e.Kind {
		case quorate.EventTermBegan:
			fmt.Printf("%s leads %s: %s\n", e.Member, e.Election, e.Reason)
		case quorate.EventTermEnded:
			fmt.Printf("%s leads %s no more: %v\n", e.Member, e.Election, e.Cause)
		}
	}}
	ns, err := quorate.Open(ctx, nc, quorate.Config{Hooks: audit, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		e, err := leader.New(ns, "reports", leader.Config{ID: id})
		if err != nil {
			log.Fatal(err)
		}
		if err := e.Run(ctx, func(context.Context, *leader.Term) error { return nil }); err != nil { // it leads, and is done
			log.Fatal(err)
		}
	}
	_ = ns.Close(ctx) // what has happened is told by then
	// Output:
	// a leads reports: fresh
	// a leads reports no more: resigned
	// b leads reports: released
	// b leads reports no more: resigned
}
