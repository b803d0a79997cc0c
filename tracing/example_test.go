package tracing_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/tracing"
)

// A question and what its handler does are one trace. In a program the spans go to an exporter, and the hooks take the global provider and propagator.
func ExampleHooks() {
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

	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	ns, err := quorate.Open(ctx, nc, quorate.Config{Logger: slog.New(slog.DiscardHandler),
		Hooks: tracing.Hooks(tracing.Config{Provider: provider, Propagator: propagation.TraceContext{}})})
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close(ctx)
	g, err := coord.Join(ctx, ns, "workers", coord.Config{ID: "a"})
	if err != nil {
		log.Fatal(err)
	}
	stop, err := g.Handle("status", func(context.Context, coord.Message) ([]byte, error) { return []byte("fine"), nil })
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	if _, err := g.Ask(ctx, coord.ToMember("a"), "status", nil); err != nil {
		log.Fatal(err)
	}
	all := spans.GetSpans()
	for _, s := range all {
		fmt.Printf("%s, a %s, in the trace of the first: %v\n", s.Name, s.SpanKind, s.SpanContext.TraceID() == all[0].SpanContext.TraceID())
	}
	// Output:
	// handle status, a consumer, in the trace of the first: true
	// ask status, a client, in the trace of the first: true
}
