package testenv_test

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
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// A link between a program and NATS is cut: nothing gets through, and nobody says so. The leader stops by itself. In a test, with Run, the same takes no time,
// and everything is closed at its end.
func ExampleLink_Cut() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "quorate-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := testenv.NewServer(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Stop()
	link := testenv.NewLink(s)
	defer link.Close()
	nc, err := nats.Connect("", nats.InProcessServer(link), nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	ns, err := quorate.Open(ctx, nc, quorate.Config{Lease: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	e, err := leader.New(ns, "reports", leader.Config{ID: "a"})
	if err != nil {
		log.Fatal(err)
	}
	term, err := e.Campaign(ctx)
	if err != nil {
		log.Fatal(err)
	}
	link.Cut(testenv.Both)
	<-term.Context().Done()
	fmt.Println("live:", term.Live(), "expired:", errors.Is(context.Cause(term.Context()), quorate.ErrExpired))
	link.Heal()
	_ = ns.Close(ctx)
	// Output:
	// live: false expired: true
}
