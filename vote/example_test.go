package vote_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/vote"
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

// Three members decide whether to switch over; a client that is no member asks them.
func ExamplePropose() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, stop := server(ctx)
	defer stop()

	for _, id := range []string{"east", "north", "west"} {
		ns, closeAll := connect(ctx, s)
		defer closeAll()
		g, err := coord.Join(ctx, ns, "store", coord.Config{ID: id})
		if err != nil {
			log.Fatal(err)
		}
		_, err = vote.Join(ctx, g, vote.Config{Decide: func(_ context.Context, b vote.Ballot) vote.Answer {
			if id == "north" {
				return vote.No("still draining")
			}
			return vote.Yes()
		}})
		if err != nil {
			log.Fatal(err)
		}
	}

	ns, closeAll := connect(ctx, s)
	defer closeAll()
	c, err := coord.Open(ctx, ns, "store")
	if err != nil {
		log.Fatal(err)
	}
	for _, kind := range []vote.Kind{vote.TwoThirds, vote.Consensus} {
		bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
		v, err := vote.Propose(bounded, c, vote.Proposal{Topic: "switch over", Kind: kind})
		cancel()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(v.Kind, v.Verdict, "of", v.Of)
		for _, r := range v.Reasons {
			if kind == vote.Consensus {
				fmt.Println(r.Member, "says:", r.Text)
			}
		}
		again, err := vote.Lookup(ctx, c, v.Ballot)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("sealed:", again.Verdict)
	}
	// Output:
	// two-thirds yes of 3
	// sealed: yes
	// consensus no of 3
	// north says: still draining
	// sealed: no
}

// Three members open their valves at one instant, if all agree; a client that is no member asks them, and hears who has.
func ExampleVerdict_Outcome() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, stop := server(ctx)
	defer stop()

	for _, id := range []string{"east", "north", "west"} {
		ns, closeAll := connect(ctx, s)
		defer closeAll()
		g, err := coord.Join(ctx, ns, "valves", coord.Config{ID: id})
		if err != nil {
			log.Fatal(err)
		}
		_, err = vote.Join(ctx, g, vote.Config{
			Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() },
			Act: func(context.Context, vote.Ballot) error {
				if id == "north" {
					return errors.New("stuck")
				}
				return nil
			},
		})
		if err != nil {
			log.Fatal(err)
		}
	}

	ns, closeAll := connect(ctx, s)
	defer closeAll()
	c, err := coord.Open(ctx, ns, "valves")
	if err != nil {
		log.Fatal(err)
	}
	v, err := vote.Propose(ctx, c, vote.Proposal{Topic: "open", Kind: vote.Consensus, At: time.Now().Add(3 * time.Second), Tolerance: 30 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(v.Verdict, v.Agreed)
	o, err := v.Outcome(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range o.Reports {
		fmt.Println(strings.TrimSpace(r.Member + " " + r.Status + " " + r.Text))
	}
	// Output:
	// yes [east north west]
	// east done
	// north failed stuck
	// west done
}
