package proof_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// L1, L2, L4, L5: what candidates see is a lock whose tokens grow.
func TestLock(t *testing.T) {
	worlds(t, func(seed uint64) {
		run(t, seed, false, func(h *history, faults map[string]int, _ []got) {
			ops, counts, err := h.lockOperations()
			if err != nil {
				t.Error(err)
				return
			}
			t.Logf("%s; faults: %s", told(counts), told(faults))
			if n := counts["acquire"]; n < 30 || counts["release"] < 10 || counts["live"] < 3*n || counts["read"] < 100 || counts["unanswered"] < 10 {
				t.Errorf("too little has happened to show anything: %s", told(counts))
			}
			enough(t, faults)
			check(t, "L1, L2", lockModel, ops)
		})
	})
}

// L2: the same over restarts of a server that keeps its data, in real time: what is waited for is that something happens, not time.
func TestLockOverRestarts(t *testing.T) {
	s := testenv.Real(t)
	inv := testenv.Watch(t)
	w := &world{t: t, h: &history{}, seed: rand.Uint64(), lease: lease / 4}
	w.open = func() *quorate.Namespace {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		ns, err := inv.Open(ctx, s.Connect(""), quorate.Config{Lease: w.lease, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	var end context.CancelFunc
	w.over, end = context.WithCancel(context.Background())
	defer end()
	for i := range 3 {
		w.slots = append(w.slots, w.start(fmt.Sprintf("c%d", i)))
	}
	terms := func() int {
		w.h.mu.Lock()
		defer w.h.mu.Unlock()
		return len(w.h.terms)
	}
	restarts := 0
	for deadline := time.Now().Add(3 * time.Minute); restarts < 3; restarts++ {
		for had := terms(); terms() < had+3; w.sleep(w.lease / 20) {
			if time.Now().After(deadline) {
				t.Fatalf("only %d terms after %d restarts", terms(), restarts)
			}
			w.read(w.slots[restarts])
		}
		s.Stop()
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	end()
	for _, p := range w.slots {
		p.done.Wait()
		if err := p.ns.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	ops, counts, err := w.h.lockOperations()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(told(counts))
	check(t, "L1, L2", lockModel, ops)
}

// R41, F1, F2: what holders and former holders see of a record behind a guard is a register that takes no older token.
func TestFencedRegister(t *testing.T) {
	worlds(t, func(seed uint64) {
		run(t, seed, true, func(h *history, faults map[string]int, stream []got) {
			ops, counts := h.registerOperations()
			t.Logf("%s; faults: %s", told(counts), told(faults))
			if counts["accepted"] < 100 || counts["perhaps"] < 20 || counts["late, refused"] < 20 || counts["read"] < 100 {
				t.Errorf("too little has happened to show anything: %s", told(counts))
			}
			enough(t, faults)
			ordered(t, h, stream)
			check(t, "F1, F2", registerModel.ToModel(), ops)
		})
	})
}

// ordered looks through what the stream has stored: tokens only grow, what was accepted is there once, what was refused is not.
func ordered(t *testing.T, h *history, stream []got) {
	t.Helper()
	var last uint64
	stored := map[string]int{}
	for i, m := range stream {
		if m.token < last {
			t.Errorf("F1: write %d has token %d, after %d", i, m.token, last)
		}
		last = m.token
		stored[m.value]++
	}
	for _, w := range h.writes {
		n := stored[w.value]
		switch {
		case w.value == "": // deletes cannot be told apart
		case n > 1:
			t.Errorf("L4: %q was stored %d times", w.value, n)
		case w.out == accepted && n == 0:
			t.Errorf("F2: %q was accepted, and is not there", w.value)
		case (w.out == refused || w.out == nothing) && n > 0:
			t.Errorf("F2: %q was stored, and said not to be: %v", w.value, w.err)
		}
	}
}

func enough(t *testing.T, faults map[string]int) {
	t.Helper()
	total := 0
	for _, n := range faults {
		total += n
	}
	if total < 50 || len(faults) < 8 {
		t.Errorf("%d faults of %d kinds: too few to show anything", total, len(faults))
	}
}

// The models see what they are to see: histories that are wrong are not linearizable, and their like that are right are.
func TestModels(t *testing.T) {
	type o = porcupine.Operation
	lockAt := func(kind string, token uint64, call, ret int64) o {
		return o{Input: lockOp{kind, token}, Call: call, Return: ret}
	}
	regAt := func(kind string, token uint64, value string, newer uint64, call, ret int64) o {
		return o{Input: registerOp{kind, token, value, newer}, Call: call, Return: ret}
	}
	reg := registerModel.ToModel()
	for _, c := range []struct {
		name  string
		model porcupine.Model
		right bool
		ops   []o
	}{
		{"one term after the other", lockModel, true, []o{lockAt("acquire", 5, 1, 2), lockAt("live", 5, 3, 4), lockAt("end", 5, 3, 6), lockAt("acquire", 7, 5, 8)}},
		{"L1: live while the next has begun", lockModel, false, []o{lockAt("acquire", 5, 1, 2), lockAt("acquire", 7, 3, 4), lockAt("live", 5, 5, 6), lockAt("end", 5, 5, 8)}},
		{"L1: begins before the other's end", lockModel, false, []o{lockAt("acquire", 5, 1, 2), lockAt("acquire", 7, 3, 4), lockAt("end", 5, 5, 8)}},
		{"L2: a lower token", lockModel, false, []o{lockAt("acquire", 7, 1, 2), lockAt("end", 7, 1, 3), lockAt("acquire", 5, 4, 5)}},
		{"L2: the same token", lockModel, false, []o{lockAt("acquire", 7, 1, 2), lockAt("end", 7, 1, 3), lockAt("acquire", 7, 4, 5)}},
		{"a holder that has died is still read", lockModel, true, []o{lockAt("acquire", 5, 1, 2), lockAt("end", 5, 1, 3), lockAt("read", 5, 4, 5), lockAt("clear", 5, 1, never)}},
		{"a live one's record is gone", lockModel, false, []o{lockAt("acquire", 5, 1, 2), lockAt("clear", 5, 1, never), lockAt("read", 0, 3, 4), lockAt("live", 5, 5, 6)}},
		{"L5: released, and still read", lockModel, false, []o{lockAt("acquire", 5, 1, 2), lockAt("end", 5, 3, 4), lockAt("release", 5, 3, 5), lockAt("read", 5, 6, 7)}},
		{"an old read", lockModel, false, []o{lockAt("acquire", 5, 1, 2), lockAt("end", 5, 1, 3), lockAt("acquire", 7, 4, 5), lockAt("read", 5, 6, 7), lockAt("clear", 5, 1, 5)}},
		{"an acquire without an answer has landed", lockModel, true, []o{lockAt("orphan", 5, 1, 9), lockAt("read", 0, 2, 3), lockAt("read", 5, 4, 5), lockAt("acquire", 7, 6, 8)}},
		{"an acquire without an answer while another is live", lockModel, false, []o{lockAt("acquire", 5, 1, 2), lockAt("orphan", 7, 3, 6), lockAt("read", 7, 4, 5), lockAt("live", 5, 7, 8)}},

		{"written and read", reg, true, []o{regAt("accepted", 5, "a", 0, 1, 2), regAt("accepted", 5, "b", 0, 3, 5), regAt("read", 5, "a", 0, 4, 6), regAt("read", 5, "b", 0, 7, 8)}},
		{"F1: an older token is accepted", reg, false, []o{regAt("accepted", 7, "a", 0, 1, 2), regAt("accepted", 5, "b", 0, 3, 4)}},
		{"F1: after a delete", reg, false, []o{regAt("accepted", 7, "", 0, 1, 2), regAt("accepted", 5, "b", 0, 3, 4)}},
		{"at the same time, in either order", reg, true, []o{regAt("accepted", 7, "a", 0, 1, 4), regAt("accepted", 5, "b", 0, 2, 3)}},
		{"an old value is read", reg, false, []o{regAt("accepted", 5, "a", 0, 1, 2), regAt("accepted", 5, "b", 0, 3, 4), regAt("read", 5, "a", 0, 5, 6)}},
		{"perhaps, late", reg, true, []o{regAt("perhaps", 5, "a", 0, 1, never), regAt("read", 0, "", 0, 2, 3), regAt("read", 5, "a", 0, 4, 5)}},
		{"perhaps, never", reg, true, []o{regAt("perhaps", 5, "a", 0, 1, never), regAt("read", 0, "", 0, 2, 3), regAt("accepted", 4, "b", 0, 4, 5)}},
		{"F2: perhaps, twice", reg, false, []o{regAt("perhaps", 5, "a", 0, 1, never), regAt("read", 5, "a", 0, 2, 3), regAt("accepted", 5, "b", 0, 4, 5), regAt("read", 5, "a", 0, 6, 7)}},
		{"F1: perhaps, over a newer one", reg, false, []o{regAt("accepted", 7, "b", 0, 1, 2), regAt("perhaps", 5, "a", 0, 1, never), regAt("read", 5, "a", 0, 3, 4)}},
		{"F2: refused, and there", reg, false, []o{regAt("accepted", 7, "b", 0, 1, 2), regAt("refused", 5, "a", 7, 3, 4), regAt("read", 5, "a", 0, 5, 6)}},
		{"refused for what was not there", reg, false, []o{regAt("accepted", 7, "b", 0, 1, 2), regAt("refused", 5, "a", 8, 3, 4)}},
	} {
		if got := porcupine.CheckOperations(c.model, c.ops); got != c.right {
			t.Errorf("%s: linearizable %v, want %v", c.name, got, c.right)
		}
	}
}
