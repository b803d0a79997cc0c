// Command quickstart is one of several processes that share some work. Start it in three terminals.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/partition"
)

func run(ctx context.Context) error {
	host, err := embedded.OpenHost(ctx, embedded.HostOptions{}) // the first process serves NATS, the rest use it
	if err != nil {
		return err
	}
	defer host.Close(context.Background())
	nc, err := host.Connect(ctx, quorate.Options(0)...) // with a NATS of your own: nats.Connect(url)
	if err != nil {
		return err
	}
	ns, err := quorate.Open(ctx, nc, quorate.Config{})
	if err != nil {
		return err
	}
	defer ns.Close(context.Background()) // leaves the group: the others take over at once
	g, err := coord.Join(ctx, ns, "workers", coord.Config{})
	if err != nil {
		return err
	}
	p, err := partition.Join(ctx, g, partition.Config{})
	if err != nil {
		return err
	}
	return p.Run(ctx, func(ctx context.Context, a *partition.Assignment) error {
		fmt.Printf("%s works on share %d of %d, token %d\n", g.ID(), a.Index, a.Total, a.Generation)
		<-ctx.Done() // the work, as long as a.Live(); whose item it is says a.Owns(item)
		return nil
	})
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}
