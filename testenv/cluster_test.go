package testenv_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/testenv"
)

func patiently(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A cluster is what it says: three replicas, a leader that can be moved, killed and cut off, and data that stays.
func TestCluster(t *testing.T) {
	ctx := patiently(t)
	c := testenv.NewCluster(t, 3)
	nc := c.Connect("a")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var kv jetstream.KeyValue
	for { // a server that is busy may never answer a request: ask again, do not wait for ever
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		kv, err = js.CreateKeyValue(try, jetstream.KeyValueConfig{Bucket: "B", Replicas: 3})
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	put := func(value string) {
		t.Helper()
		for {
			try, cancel := context.WithTimeout(ctx, time.Second)
			_, err := kv.Put(try, "key", []byte(value))
			cancel()
			if err == nil {
				return
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	put("1")
	from, to, err := c.StepDownStream(ctx, "B")
	if err != nil || from == to || to != c.StreamLeader("B") {
		t.Fatalf("step-down: from %d to %d, now %d: %v", from, to, c.StreamLeader("B"), err)
	}
	put("2")

	c.Kill(to)
	if c.Server(to) != nil || c.StreamLeader("B") == to {
		t.Fatalf("server %d was killed, and runs", to)
	}
	put("3")
	url := c.URLOf(to)
	c.Start(to)
	if c.URLOf(to) != url {
		t.Errorf("listens on %s after a restart, before on %s", c.URLOf(to), url)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}

	// Cut off from the others a server takes no writes, whoever is connected to it.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	leads := func(but int) int {
		t.Helper()
		for {
			if i := c.StreamLeader("B"); i >= 0 && i != but {
				return i
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatal("no leader")
			}
		}
	}
	lead := leads(-1)
	alone, err := nats.Connect(c.URLOf(lead), nats.Timeout(10*time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	c.Isolate(lead)
	if m, err := alone.Request("$KV.B.key", []byte("lost"), 300*time.Millisecond); err == nil {
		t.Errorf("an isolated server has taken a write: %s", m.Data)
	}
	others, err := nats.Connect(c.URLOf(leads(lead)), nats.Timeout(10*time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer others.Close()
	for {
		m, err := others.Request("$KV.B.key", []byte("4"), 5*time.Second)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the others have taken no write: %v, %v", m, err)
		}
	}
	c.Rejoin(lead)
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	put("5")

	for i := range c.Size() {
		c.Stop(i)
	}
	for i := range c.Size() {
		c.Start(i)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	var e jetstream.KeyValueEntry
	for {
		if e, err = kv.Get(ctx, "key"); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil || string(e.Value()) != "5" {
		t.Errorf("after a restart of all: %v, %v", e, err)
	}
}

// A namespace opened on three servers has a bucket of three replicas.
func TestClusterBucketHasThreeReplicas(t *testing.T) {
	ctx := patiently(t)
	c := testenv.NewCluster(t, 3, testenv.WithSync())
	ns, err := testenv.Watch(t).Open(ctx, c.Connect("a"), quorate.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close(ctx)
	if err := ns.Check(ctx); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(c.Connect("b"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(ctx, "KV_QUORATE_default")
	if err != nil {
		t.Fatal(err)
	}
	info := st.CachedInfo()
	if info.Config.Replicas != 3 || info.Cluster == nil || len(info.Cluster.Replicas) != 2 {
		t.Errorf("replicas %d, cluster %+v; want 3, and two followers", info.Config.Replicas, info.Cluster)
	}
	if lead := c.StreamLeader("QUORATE_default"); lead < 0 || c.Server(lead).Name() != info.Cluster.Leader {
		t.Errorf("leader %d, by its record %s", lead, info.Cluster.Leader)
	}
}
