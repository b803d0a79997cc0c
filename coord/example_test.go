package coord_test

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/leader"
)

// server is a NATS for an example.
func server(ctx context.Context) (*embedded.Server, func()) {
	dir, err := os.MkdirTemp("", "quorate-example-")
	if err != nil {
		stdlog.Fatal(err)
	}
	s, err := embedded.Start(ctx, embedded.Options{StoreDir: dir})
	if err != nil {
		stdlog.Fatal(err)
	}
	return s, func() {
		_ = s.Close(context.Background())
		_ = os.RemoveAll(dir)
	}
}

// process is what a process does first: connect, and open a namespace.
func process(ctx context.Context, s *embedded.Server) (*quorate.Namespace, func()) {
	nc, err := nats.Connect(s.URL(), quorate.Options(0)...)
	if err != nil {
		stdlog.Fatal(err)
	}
	ns, err := quorate.Open(ctx, nc, quorate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		stdlog.Fatal(err)
	}
	return ns, func() {
		_ = ns.Close(context.Background())
		nc.Close()
	}
}

// Two processes join a group; one of them leads, and hands over when it leaves.
func ExampleJoin() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, stop := server(ctx)
	defer stop()

	var members []*coord.Group
	for _, id := range []string{"east", "west"} {
		ns, end := process(ctx, s)
		defer end()
		g, err := coord.Join(ctx, ns, "workers", coord.Config{ID: id, Meta: map[string]string{"site": id}})
		if err != nil {
			stdlog.Fatal(err)
		}
		members = append(members, g)
	}
	east, west := members[0], members[1]

	roster, err := west.Members(ctx)
	if err != nil {
		stdlog.Fatal(err)
	}
	for _, m := range roster {
		fmt.Println(m.ID, m.Status, m.Meta["site"], "leads:", m.Leader)
	}

	if err := east.Leave(ctx); err != nil {
		stdlog.Fatal(err)
	}
	fmt.Println(context.Cause(east.Context()))
	work, done := context.WithCancel(ctx)
	err = west.Lead(work, func(ctx context.Context, t *leader.Term) error {
		fmt.Println("west leads:", t.Live())
		done()
		return nil
	})
	fmt.Println(err)
	// Output:
	// east alive east leads: true
	// west alive west leads: false
	// left the group
	// west leads: true
	// <nil>
}

// A client that is no member asks the leader.
func ExampleClient_Ask() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, stop := server(ctx)
	defer stop()

	ns, end := process(ctx, s)
	defer end()
	g, err := coord.Join(ctx, ns, "workers", coord.Config{ID: "east"})
	if err != nil {
		stdlog.Fatal(err)
	}
	_, err = g.Handle("stock", func(_ context.Context, m coord.Message) ([]byte, error) {
		if string(m.Data) != "bolts" {
			return nil, fmt.Errorf("no %s here", m.Data)
		}
		return []byte("41"), nil
	})
	if err != nil {
		stdlog.Fatal(err)
	}

	ns, end = process(ctx, s)
	defer end()
	c, err := coord.Open(ctx, ns, "workers")
	if err != nil {
		stdlog.Fatal(err)
	}
	r, err := c.Ask(ctx, coord.ToLeader, "stock", []byte("bolts"))
	fmt.Println(r.From, string(r.Data), err)
	_, err = c.Ask(ctx, coord.ToLeader, "stock", []byte("nuts"))
	var remote *coord.RemoteError
	fmt.Println(errors.As(err, &remote), remote)
	_, err = c.Ask(ctx, coord.ToMember("north"), "stock", []byte("bolts"))
	fmt.Println(err)
	// Output:
	// east 41 <nil>
	// true member "east": no nuts here
	// coord: ask north of group "workers": no such member
}

// Each reader of Watch is told what has changed since its view before, and why.
func ExampleClient_Watch() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, stop := server(ctx)
	defer stop()

	ns, end := process(ctx, s)
	defer end()
	east, err := coord.Join(ctx, ns, "workers", coord.Config{ID: "east"})
	if err != nil {
		stdlog.Fatal(err)
	}
	ns, end = process(ctx, s)
	defer end()

	for v, err := range east.Watch(ctx) {
		if err != nil {
			stdlog.Fatal(err)
		}
		for _, d := range v.Left {
			fmt.Println(d.Member.ID, d.Reason)
		}
		for _, m := range v.Joined {
			fmt.Println(m.ID, "joined")
		}
		switch {
		case len(v.Left) > 0:
			return
		case len(v.Members) == 1:
			go func() { _, _ = coord.Join(ctx, ns, "workers", coord.Config{ID: "west"}) }()
		default:
			go end()
		}
	}
	// Output:
	// east joined
	// west joined
	// west left
}
