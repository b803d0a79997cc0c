package fence_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/fence"
	"github.com/quorate/quorate/leader"
)

// What one leader wrote, a former one cannot overwrite, however late its write arrives.
func ExampleKV() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "quorate-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := embedded.Start(ctx, embedded.Options{StoreDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(ctx)
	nc, err := nats.Connect(s.URL(), quorate.Options(0)...)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	ns, err := quorate.Open(ctx, nc, quorate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close(ctx)
	e, err := leader.New(ns, "reports", leader.Config{})
	if err != nil {
		log.Fatal(err)
	}

	// A bucket of your own, guarded.
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	plain, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "reports"})
	if err != nil {
		log.Fatal(err)
	}
	reports, err := fence.NewKV(ctx, js, "reports", fence.KVConfig{})
	if err != nil {
		log.Fatal(err)
	}

	var former *leader.Term
	for _, text := range []string{"first", "second"} {
		term, err := e.Campaign(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := reports.Put(ctx, "daily", []byte(text), term); err != nil {
			log.Fatal(err)
		}
		if text == "first" {
			former = term
			if err := term.Resign(ctx); err != nil {
				log.Fatal(err)
			}
		}
	}
	_, err = reports.Put(ctx, "daily", []byte("late"), former)
	fmt.Println("it knows by itself:", errors.Is(err, fence.ErrNotLive))
	_, err = reports.Put(ctx, "daily", []byte("late"), fence.Token(former.Token())) // as if it had stood still after asking
	fmt.Println("and is refused:", errors.Is(err, fence.ErrStale))
	entry, err := plain.Get(ctx, "daily") // others read as ever
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the report is the", string(entry.Value()))
	// Output:
	// it knows by itself: true
	// and is refused: true
	// the report is the second
}

// A server that takes orders from one leader at a time.
func ExampleHTTP() {
	guarded := fence.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "done: %s", body)
	}), fence.HTTPConfig{})
	s := httptest.NewServer(guarded)
	defer s.Close()

	for _, token := range []fence.Token{33, 34, 33} { // in a leader: its *leader.Term
		client := http.Client{Transport: fence.RoundTripper(nil, token)}
		resp, err := client.Post(s.URL, "text/plain", strings.NewReader("restart"))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(token, resp.StatusCode)
		var stale *fence.StaleError
		if errors.As(fence.ResponseError(resp), &stale) {
			fmt.Println(stale.Token, "is older than", stale.Newer)
		}
		resp.Body.Close()
	}
	// Output:
	// 33 200
	// 34 200
	// 33 412
	// 33 is older than 34
}
