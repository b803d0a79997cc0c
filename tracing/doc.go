// Package tracing makes OpenTelemetry spans of a program's votes and messages, by the hooks of its namespaces:
//
//	ns, err := quorate.Open(ctx, nc, quorate.Config{Hooks: tracing.Hooks(tracing.Config{})})
//
// with the program's global tracer provider and propagator, or those of the Config. With package metrics beside it:
// quorate.JoinHooks(m.Hooks(), tracing.Hooks(tracing.Config{})).
//
// # The spans
//
//	send TOPIC, ask TOPIC, gather TOPIC   a call of Send (producer), Ask, Gather (client)
//	handle TOPIC                          a handler's call (consumer), child of what has sent the message
//	propose, cancel                       a call of vote.Propose, vote.Cancel (client)
//	round                                 at the leader, from the opening of a ballot to its sealed verdict (internal), child of the propose
//	decide, act                           a voter's functions (server, internal), children of the propose
//
// Their attributes are quorate.namespace, .group, .member, .to, .topic, .ballot, .answer, and messaging.system and messaging.message.id with messages.
//
// # What it promises
//
//   - What one message or proposal has led to is one trace, across processes (TestMessages, TestVote): its context travels as headers of the message,
//     or in the proposal, as the propagator writes it, up to 512 bytes.
//   - It costs nothing where it is not used: without hooks no span is made, and nothing is allocated for one (internal/inner has the test).
//
// # What it does not promise
//
// That a remote parent is true: it is what the sender says. Nothing is decided by it. That a message that nobody handles has a span beside its sender's. That a round which
// another leader takes up is one span: each leader has its own.
//
// # Concurrency
//
// Hooks may serve any number of namespaces.
package tracing
