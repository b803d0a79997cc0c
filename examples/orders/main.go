// Command orders consumes a stream by as many processes as are started, each key's messages in their order. The server puts them into 64 buckets by
// their keys (orders.KEY is stored as orders.BUCKET.KEY), quorate gives each bucket to one process at a time.
package main

import (
	"context"
	"fmt"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/partition"
)

var stream = jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.*"}, SubjectTransform: &jetstream.SubjectTransformConfig{
	Source: "orders.*", Destination: "orders.{{partition(64,1)}}.{{wildcard(1)}}"}}

// consume takes a part of the stream until ctx ends. A message can come to handle again, if its process died before it was acknowledged.
func consume(ctx context.Context, p *partition.Partition, js jetstream.JetStream, handle func(*partition.Bucket, jetstream.Msg) error) error {
	// A consumer belongs to its bucket and outlives its owners; one message is out at a time, so that none overtakes one that comes again.
	drain := func(ctx context.Context, b *partition.Bucket) error {
		c, err := js.CreateOrUpdateConsumer(ctx, stream.Name, jetstream.ConsumerConfig{Durable: fmt.Sprint("bucket-", b.N),
			FilterSubject: fmt.Sprintf("orders.%d.*", b.N), AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, AckWait: 10 * time.Second})
		if err != nil {
			return err
		}
		it, err := c.Messages(jetstream.PullMaxMessages(1))
		if err != nil {
			return err
		}
		defer it.Stop()
		for err == nil && b.Live() {
			var m jetstream.Msg
			if m, err = it.Next(jetstream.NextContext(ctx)); err == nil && b.Live() { // else the bucket is another's by now, and so is m
				if err = handle(b, m); err == nil {
					err = m.DoubleAck(b.Context())
				}
			}
		}
		return err
	}
	return p.RunBuckets(ctx, func(ctx context.Context, b *partition.Bucket) error {
		for ctx.Err() == nil && b.Live() {
			if err := drain(ctx, b); err != nil && ctx.Err() == nil {
				log.Printf("bucket %d: %v: again in a second", b.N, err)
				time.Sleep(time.Second)
			}
		}
		return nil
	})
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	nc := must(nats.Connect(nats.DefaultURL, quorate.Options(0)...))
	js := must(jetstream.New(nc))
	must(js.CreateOrUpdateStream(ctx, stream))
	ns := must(quorate.Open(ctx, nc, quorate.Config{}))
	defer ns.Close(context.Background())
	g := must(coord.Join(ctx, ns, "orders", coord.Config{}))
	p := must(partition.Join(ctx, g, partition.Config{Buckets: 64, Hash: partition.HashNATS}))
	log.Println("ended:", consume(ctx, p, js, func(b *partition.Bucket, m jetstream.Msg) error {
		fmt.Printf("%s: %s (fence what it writes with %d)\n", m.Subject(), m.Data(), b.Token())
		return nil
	}))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
