package metrics_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/metrics"
)

// A program that serves its metrics has quorate's among them.
func ExampleNew() {
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
	nc, err := nats.Connect(s.URL())
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()

	registry := prometheus.NewRegistry() // or the default one
	m := metrics.New()
	registry.MustRegister(m)
	web := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer web.Close()

	ns, err := quorate.Open(ctx, nc, quorate.Config{Hooks: m.Hooks(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	e, err := leader.New(ns, "reports", leader.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if err := e.Run(ctx, func(context.Context, *leader.Term) error { return nil }); err != nil { // it leads, and is done
		log.Fatal(err)
	}
	if err := ns.Close(ctx); err != nil { // tells all that has happened
		log.Fatal(err)
	}

	page, err := http.Get(web.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer page.Body.Close()
	text, err := io.ReadAll(page.Body)
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if strings.HasPrefix(line, "quorate_leader") || strings.HasPrefix(line, "quorate_terms_") {
			fmt.Println(line)
		}
	}
	// Output:
	// quorate_leader{election="reports",group="",namespace="default"} 0
	// quorate_terms_ended_total{election="reports",group="",namespace="default",reason="resigned"} 1
	// quorate_terms_total{election="reports",group="",namespace="default",reason="fresh"} 1
}
