package embedded_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/embedded"
)

// A NATS server in this process, with its data in a directory.
func ExampleStart() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "quorate-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	for _, run := range []string{"first run", "second run"} {
		s, err := embedded.Start(ctx, embedded.Options{StoreDir: dir})
		if err != nil {
			log.Fatal(err)
		}
		nc, err := nats.Connect(s.URL())
		if err != nil {
			log.Fatal(err)
		}
		js, err := nc.JetStream()
		if err != nil {
			log.Fatal(err)
		}
		kv, err := js.KeyValue("notes")
		if err != nil {
			if kv, err = js.CreateKeyValue(&nats.KeyValueConfig{Bucket: "notes"}); err != nil {
				log.Fatal(err)
			}
		}
		if e, err := kv.Get("since"); err == nil {
			fmt.Printf("%s: kept since the %s\n", run, e.Value())
		} else if _, err := kv.PutString("since", run); err != nil {
			log.Fatal(err)
		}
		nc.Close()
		if err := s.Close(ctx); err != nil { // acknowledged writes are on the disk
			log.Fatal(err)
		}
	}
	// Output:
	// second run: kept since the first run
}

// The processes of a host share one server: the first serves, and when it ends the next does, on the same data. (Two handles of one process stand for two
// processes here.)
func ExampleOpenHost() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "quorate-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	takes := make(chan string, 2)
	open := func(name string) (*embedded.Host, *nats.Conn) {
		h, err := embedded.OpenHost(ctx, embedded.HostOptions{Dir: dir, OnServe: func(string) { takes <- name }})
		if err != nil {
			log.Fatal(err)
		}
		nc, err := h.Connect(ctx)
		if err != nil {
			log.Fatal(err)
		}
		return h, nc
	}
	first, one := open("the first")
	fmt.Println(<-takes, "serves")
	second, two := open("the second")
	one.Close()
	if err := first.Close(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-takes, "serves")
	for !two.IsConnected() || two.FlushTimeout(time.Second) != nil {
		if ctx.Err() != nil {
			log.Fatal(ctx.Err())
		}
	}
	fmt.Println("and its connection goes on")
	two.Close()
	if err := second.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// the first serves
	// the second serves
	// and its connection goes on
}
