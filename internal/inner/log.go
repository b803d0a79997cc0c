package inner

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// Known is the newest term and generation that a member or candidate knows of: its log lines carry them, so that lines of several processes can be
// laid side by side (R40).
type Known struct{ term, generation atomic.Uint64 }

// Term notes a term. An older one than is known changes nothing.
func (k *Known) Term(token uint64) { raise(&k.term, token) }

// Generation notes a generation.
func (k *Known) Generation(gen uint64) { raise(&k.generation, gen) }

func raise(a *atomic.Uint64, v uint64) {
	for {
		old := a.Load()
		if v <= old || a.CompareAndSwap(old, v) {
			return
		}
	}
}

// InGroup is the logger of a member of a group, or of a client of it: then the id is "". Each line says group, member, term and generation; 0 is none that it knows of.
func InGroup(log *slog.Logger, group, member string, k *Known) *slog.Logger {
	return stated(log, k, true).With("group", group, "member", member)
}

// InElection is the logger of a candidate of a plain election. Each line says election, member and term.
func InElection(log *slog.Logger, name, member string, k *Known) *slog.Logger {
	return stated(log, k, false).With("election", name, "member", member)
}

func stated(log *slog.Logger, k *Known, group bool) *slog.Logger {
	return slog.New(&statedHandler{log.Handler(), k, group})
}

// statedHandler adds to each line what is known when it is written. What the line says itself stands: it may be about another term.
type statedHandler struct {
	slog.Handler
	known *Known
	group bool
}

func (h *statedHandler) Handle(ctx context.Context, r slog.Record) error {
	term, generation := true, h.group
	r.Attrs(func(a slog.Attr) bool {
		term, generation = term && a.Key != "term", generation && a.Key != "generation"
		return true
	})
	if term || generation {
		r = r.Clone()
	}
	if term {
		r.AddAttrs(slog.Uint64("term", h.known.term.Load()))
	}
	if generation {
		r.AddAttrs(slog.Uint64("generation", h.known.generation.Load()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h *statedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &statedHandler{h.Handler.WithAttrs(attrs), h.known, h.group}
}

func (h *statedHandler) WithGroup(name string) slog.Handler {
	return &statedHandler{h.Handler.WithGroup(name), h.known, h.group}
}
