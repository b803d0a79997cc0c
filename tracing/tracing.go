package tracing

import (
	"context"
	"maps"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/quorate/quorate"
)

// Config of the hooks. The zero value works, once the program has set its global provider and propagator.
type Config struct {
	// Provider makes the tracer. Default: otel.GetTracerProvider(), asked when Hooks is called.
	Provider trace.TracerProvider
	// Propagator writes and reads what messages and proposals carry. Default: otel.GetTextMapPropagator(), asked each time.
	Propagator propagation.TextMapPropagator
}

// Name is the tracer's name, which says in a trace that these spans are quorate's.
const Name = "github.com/quorate/quorate/tracing"

// Hooks are for [quorate.Config].
func Hooks(cfg Config) quorate.Hooks {
	if cfg.Provider == nil {
		cfg.Provider = otel.GetTracerProvider()
	}
	t := &tracer{cfg.Provider.Tracer(Name), cfg.Propagator}
	return quorate.Hooks{Event: t.event, Span: t.span, Inject: t.inject}
}

type tracer struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
}

func (t *tracer) carrying() propagation.TextMapPropagator {
	if t.propagator != nil {
		return t.propagator
	}
	return otel.GetTextMapPropagator()
}

func (t *tracer) inject(ctx context.Context) map[string]string {
	carrier := propagation.MapCarrier{}
	t.carrying().Inject(ctx, carrier)
	return carrier
}

// kinds are the span kinds of operations.
var kinds = map[string]trace.SpanKind{
	quorate.OpSend: trace.SpanKindProducer, quorate.OpAsk: trace.SpanKindClient, quorate.OpGather: trace.SpanKindClient, quorate.OpHandle: trace.SpanKindConsumer,
	quorate.OpPropose: trace.SpanKindClient, quorate.OpCancel: trace.SpanKindClient, quorate.OpDecide: trace.SpanKindServer, quorate.OpAct: trace.SpanKindInternal,
}

func (t *tracer) span(ctx context.Context, s quorate.Span) (context.Context, func(quorate.SpanEnd)) {
	if len(s.Remote) > 0 {
		ctx = t.carrying().Extract(ctx, propagation.MapCarrier(s.Remote))
	}
	name := s.Op
	attrs := about(s.Namespace, s.Group, s.Member, s.Topic, s.Ballot)
	if s.Ballot == "" { // a message: its topic is a name, of which there are few; a ballot's is any text
		if s.Topic != "" {
			name += " " + s.Topic
		}
		attrs = append(attrs, attribute.String("messaging.system", "nats"), attribute.String("quorate.to", s.To), attribute.String("messaging.message.id", s.Message))
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kinds[s.Op]), trace.WithAttributes(attrs...))
	return ctx, func(e quorate.SpanEnd) {
		if e.Answer != "" {
			span.SetAttributes(attribute.String("quorate.answer", e.Answer))
		}
		if e.Err != nil {
			span.SetStatus(codes.Error, e.Err.Error())
		}
		span.End()
	}
}

func about(namespace, group, member, topic, ballot string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("quorate.namespace", namespace), attribute.String("quorate.group", group), attribute.String("quorate.topic", topic)}
	if member != "" {
		attrs = append(attrs, attribute.String("quorate.member", member))
	}
	if ballot != "" {
		attrs = append(attrs, attribute.String("quorate.ballot", ballot))
	}
	return attrs
}

// event makes the leader's span of a ballot, when it is over: a leader's loop calls nobody, and so no span can be begun on it.
func (t *tracer) event(e quorate.Event) {
	if e.Kind != quorate.EventVerdict || len(e.Trace) == 0 {
		return
	}
	ctx := t.carrying().Extract(context.Background(), propagation.MapCarrier(maps.Clone(e.Trace)))
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return // nobody's: it would be a trace of one span
	}
	_, span := t.tracer.Start(ctx, "round", trace.WithTimestamp(e.Time.Add(-e.Took)), trace.WithSpanKind(trace.SpanKindInternal),
		trace.WithAttributes(append(about(e.Namespace, e.Group, e.Member, e.Topic, e.Ballot), attribute.String("quorate.answer", e.Answer))...))
	span.End(trace.WithTimestamp(e.Time))
}
