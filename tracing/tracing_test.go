package tracing_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/tracing"
	"github.com/quorate/quorate/vote"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// recorder makes hooks whose spans can be looked at. Each process has its own, as in life.
func recorder() (*tracetest.SpanRecorder, quorate.Hooks) {
	r := tracetest.NewSpanRecorder()
	p := sdk.NewTracerProvider(sdk.WithSpanProcessor(r), sdk.WithSampler(sdk.AlwaysSample()))
	return r, tracing.Hooks(tracing.Config{Provider: p, Propagator: propagation.TraceContext{}})
}

// await waits, in virtual time, for the span of that name.
func await(t *testing.T, r *tracetest.SpanRecorder, name string) sdk.ReadOnlySpan {
	t.Helper()
	for range 1000 {
		for _, s := range r.Ended() {
			if s.Name() == name {
				return s
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no span %q; there are %d", name, len(r.Ended()))
	return nil
}

func attribute(s sdk.ReadOnlySpan, key string) string {
	for _, a := range s.Attributes() {
		if string(a.Key) == key {
			return a.Value.AsString()
		}
	}
	return ""
}

// child says that a span is the other's child, in the same trace, though another process made it.
func child(t *testing.T, s, of sdk.ReadOnlySpan) {
	t.Helper()
	if s.Parent().SpanID() != of.SpanContext().SpanID() || s.SpanContext().TraceID() != of.SpanContext().TraceID() || !s.Parent().IsRemote() {
		t.Errorf("span %q is not the child of %q in another process: parent %v in trace %v; want %v in %v", s.Name(), of.Name(),
			s.Parent().SpanID(), s.SpanContext().TraceID(), of.SpanContext().SpanID(), of.SpanContext().TraceID())
	}
}

func TestMessages(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ctx := context.Background()
		rec, hooks := recorder()
		g, err := coord.Join(ctx, e.Namespace(quorate.Config{Hooks: hooks}), "workers", coord.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		inside := make(chan trace.SpanContext, 4)
		for topic, fails := range map[string]error{"status": nil, "broken": errors.New("out of order")} {
			stop, err := g.Handle(topic, func(ctx context.Context, m coord.Message) ([]byte, error) {
				inside <- trace.SpanContextFromContext(ctx)
				return []byte("fine"), fails
			})
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
		}
		theirs, hooks := recorder()
		c, err := coord.Open(ctx, e.Namespace(quorate.Config{Hooks: hooks}), "workers")
		if err != nil {
			t.Fatal(err)
		}

		if err := c.Send(ctx, coord.ToAll, "status", nil); err != nil {
			t.Fatal(err)
		}
		send, handle := await(t, theirs, "send status"), await(t, rec, "handle status")
		child(t, handle, send)
		if got := <-inside; got.SpanID() != handle.SpanContext().SpanID() {
			t.Errorf("the handler works in span %v, want its own, %v", got.SpanID(), handle.SpanContext().SpanID())
		}
		for key, want := range map[string]string{"quorate.namespace": "default", "quorate.group": "workers", "quorate.to": "all", "quorate.topic": "status", "messaging.system": "nats"} {
			if got := attribute(send, key); got != want {
				t.Errorf("%s of the send: got %q, want %q", key, got, want)
			}
		}
		if id := attribute(handle, "messaging.message.id"); id == "" || id != attribute(send, "messaging.message.id") {
			t.Errorf("message id: got %q at the handler, %q at the sender", id, attribute(send, "messaging.message.id"))
		}
		if send.SpanKind() != trace.SpanKindProducer || handle.SpanKind() != trace.SpanKindConsumer {
			t.Errorf("kinds: got %v and %v, want producer and consumer", send.SpanKind(), handle.SpanKind())
		}

		if _, err := c.Ask(ctx, coord.ToMember("a"), "broken", nil); err == nil {
			t.Fatal("asked without an error")
		}
		ask, broken := await(t, theirs, "ask broken"), await(t, rec, "handle broken")
		child(t, broken, ask)
		if ask.Status().Code != codes.Error || broken.Status().Code != codes.Error || broken.Status().Description != "out of order" {
			t.Errorf("status: got %v and %v, want errors", ask.Status(), broken.Status())
		}
		if to := attribute(ask, "quorate.to"); to != "a" {
			t.Errorf("quorate.to: got %q, want a", to)
		}
		<-inside

		if _, err := c.Gather(ctx, "status", nil); err != nil {
			t.Fatal(err)
		}
		await(t, theirs, "gather status")
		<-inside
	})
}

func TestVote(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		rec, hooks := recorder()
		g, err := coord.Join(ctx, e.Namespace(quorate.Config{Hooks: hooks}), "workers", coord.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vote.Join(ctx, g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() }}); err != nil {
			t.Fatal(err)
		}
		theirs, hooks := recorder()
		c, err := coord.Open(ctx, e.Namespace(quorate.Config{Hooks: hooks}), "workers")
		if err != nil {
			t.Fatal(err)
		}
		v, err := vote.Propose(ctx, c, vote.Proposal{Topic: "open the valve", At: time.Now().Add(5 * time.Second)})
		if err != nil || !v.Won() {
			t.Fatalf("verdict %+v, %v", v, err)
		}
		propose := await(t, theirs, "propose")
		if got := attribute(propose, "quorate.answer"); got != "yes" {
			t.Errorf("quorate.answer: got %q, want yes", got)
		}
		for name, answer := range map[string]string{"decide": "yes", "round": "yes", "act": ""} {
			s := await(t, rec, name)
			child(t, s, propose)
			if got := attribute(s, "quorate.answer"); got != answer {
				t.Errorf("%s: answer %q, want %q", name, got, answer)
			}
			if s.EndTime().Before(s.StartTime()) || attribute(s, "quorate.ballot") != v.Ballot {
				t.Errorf("%s: from %v to %v, of ballot %q; want one of %q", name, s.StartTime(), s.EndTime(), attribute(s, "quorate.ballot"), v.Ballot)
			}
		}
		if _, err := vote.Cancel(ctx, c, v.Ballot); err != nil {
			t.Fatal(err)
		}
		await(t, theirs, "cancel")
	})
}
