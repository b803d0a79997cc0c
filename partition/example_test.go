package partition_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/partition"
)

// natsServer is a NATS for an example.
func natsServer(ctx context.Context) (*embedded.Server, func()) {
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

// process is what a process does first: connect, open a namespace, join the group, and work in it.
func process(ctx context.Context, s *embedded.Server, id string, cfg partition.Config) (*coord.Group, *partition.Partition, func()) {
	nc, err := nats.Connect(s.URL(), quorate.Options(0)...)
	if err != nil {
		log.Fatal(err)
	}
	ns, err := quorate.Open(ctx, nc, quorate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	g, err := coord.Join(ctx, ns, "workers", coord.Config{ID: id})
	if err != nil {
		log.Fatal(err)
	}
	p, err := partition.Join(ctx, g, cfg)
	if err != nil {
		log.Fatal(err)
	}
	return g, p, func() {
		_ = ns.Close(context.Background())
		nc.Close()
	}
}

// quick is how long a group must be quiet before its work is shared anew: less than by default, for examples that many wait for.
const quick = 50 * time.Millisecond

// Two processes share six orders; each order is worked on by one of them. When one leaves, the other has all of them.
func ExamplePartition_Run() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, stop := natsServer(ctx)
	defer stop()
	orders := []string{"apples", "bread", "cheese", "dates", "eggs", "figs"}

	var mu sync.Mutex
	mine := map[string][]string{}
	shared, alone := make(chan struct{}), make(chan struct{})
	share, left := sync.OnceFunc(func() { close(shared) }), sync.OnceFunc(func() { close(alone) })
	var all sync.WaitGroup
	var leave []func()
	for _, id := range []string{"east", "west"} {
		_, p, end := process(ctx, s, id, partition.Config{Settle: quick})
		leave = append(leave, end)
		all.Go(func() {
			_ = p.Run(ctx, func(ctx context.Context, a *partition.Assignment) error { // it ends with the membership
				mu.Lock()
				mine[id] = slices.DeleteFunc(slices.Clone(orders), func(o string) bool { return !a.Owns(o) })
				if a.Total == 2 && len(mine["east"])+len(mine["west"]) == len(orders) {
					share()
				}
				if a.Total == 1 && id == "west" {
					left()
				}
				mu.Unlock()
				<-ctx.Done() // the work, until the share is to be let go of
				return nil
			})
		})
	}
	<-shared
	mu.Lock()
	together := slices.Concat(mine["east"], mine["west"])
	slices.Sort(together)
	fmt.Println("both together, each order once:", together)
	mu.Unlock()
	leave[0]()
	<-alone
	mu.Lock()
	fmt.Println("west alone:", mine["west"])
	mu.Unlock()
	leave[1]()
	all.Wait()
	// Output:
	// both together, each order once: [apples bread cheese dates eggs figs]
	// west alone: [apples bread cheese dates eggs figs]
}

// With buckets a newcomer takes some of them over, and work on the rest goes on.
func ExamplePartition_RunBuckets() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, stop := natsServer(ctx)
	defer stop()

	counts := make(chan int, 1000) // how many buckets east works on, at each change
	var mu sync.Mutex
	working := 0
	change := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		working += by
		counts <- working
	}
	wait := func(n int) {
		for c := range counts {
			if c == n {
				return
			}
		}
	}
	_, east, end := process(ctx, s, "east", partition.Config{Buckets: 8, Settle: quick})
	defer end()
	var all sync.WaitGroup
	defer all.Wait()
	run, cancelRun := context.WithCancel(ctx)
	defer cancelRun()
	all.Go(func() {
		_ = east.RunBuckets(run, func(ctx context.Context, b *partition.Bucket) error { // it ends with its context
			change(1)
			<-ctx.Done() // the work on bucket b.N, until that is another's
			change(-1)
			return nil
		})
	})
	wait(8)
	fmt.Println("east works on 8 buckets")

	_, west, end := process(ctx, s, "west", partition.Config{Buckets: 8, Settle: quick})
	defer end()
	all.Go(func() {
		_ = west.RunBuckets(run, func(ctx context.Context, _ *partition.Bucket) error { <-ctx.Done(); return nil }) // it ends with its context
	})
	wait(4)
	fmt.Println("west has joined, and east goes on with 4 of them")
	// Output:
	// east works on 8 buckets
	// west has joined, and east goes on with 4 of them
}

// A router that is no member asks whose a key is.
func ExampleOwner() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, stop := natsServer(ctx)
	defer stop()
	_, p, end := process(ctx, s, "east", partition.Config{Settle: quick})
	defer end()
	for st, err := range p.Watch(ctx) { // until it has its share
		if err != nil {
			log.Fatal(err)
		}
		if st.Assignment != nil {
			break
		}
	}

	nc, err := nats.Connect(s.URL(), quorate.Options(0)...)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	ns, err := quorate.Open(ctx, nc, quorate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close(context.Background())
	c, err := coord.Open(ctx, ns, "workers")
	if err != nil {
		log.Fatal(err)
	}
	m, err := partition.Owner(ctx, c, "apples")
	fmt.Println(m.ID, err)
	// Output:
	// east <nil>
}

// Whose a key is, is the same in every process: when a member comes, few keys move.
func ExampleIndex() {
	moved := 0
	for i := range 1000 {
		key := fmt.Sprint("key-", i)
		if partition.Index(key, 10) != partition.Index(key, 11) {
			moved++
		}
	}
	fmt.Println("an eleventh member gets about one key in eleven:", moved > 60 && moved < 120)
	// Output:
	// an eleventh member gets about one key in eleven: true
}
