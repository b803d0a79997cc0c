package proof_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A history is what the clients of a world saw. Times are numbers of one counter: strictly ordered, also where virtual time stands.
type history struct {
	mu    sync.Mutex
	clock int64

	attempts []*attempt // campaigns, all of them
	terms    []*term    // those that were won
	seen     []seen     // observations of a live term
	reads    []seen     // of the record: token 0 is nobody
	writes   []*written
	gets     []got
}

// never is a time after all others.
const never = int64(math.MaxInt64)

type attempt struct {
	by     *process
	call   int64
	over   int64 // when it was known that nothing is sent for it any more; 0 while it goes on
	won    *term
	holder string
}

type term struct {
	by       *process
	token    uint64
	call     int64 // of its campaign
	ret      int64
	live     int64 // it was last observed live
	end      int64 // it was first observed not live, or its process was killed; 0 if never
	resign   int64 // call of a Resign that was confirmed
	resigned int64 // its return
}

type seen struct {
	token     uint64
	holder    string
	call, ret int64
}

type outcome int

const (
	pending outcome = iota // counts as unknown
	accepted
	refused // as stale
	unknown
	nothing // an error that says that nothing was written
)

type written struct {
	by        *process
	token     uint64
	value     string // "": a delete
	late      bool   // its term was over when it was sent
	call, ret int64
	out       outcome
	newer     uint64 // refused: by which token
	err       error
}

type got struct {
	token     uint64
	value     string
	call, ret int64
}

// tick gives the next time. The lock is held.
func (h *history) tick() int64 {
	h.clock++
	return h.clock
}

func (h *history) now() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tick()
}

// ---- the lock

// A lock is what the election looks like from outside.
type lock struct {
	live   uint64 // token of the live term; 0: none
	record uint64 // token of the term whose record stands; 0: none. A dead holder's stands until another takes over
	last   uint64 // highest token so far
}

type lockOp struct {
	kind  string
	token uint64
}

// lockModel is the sequential lock: each operation takes effect at one instant between its call and its return.
var lockModel = porcupine.Model{
	Init: func() any { return lock{} },
	Step: func(state, input, _ any) (bool, any) {
		s, op := state.(lock), input.(lockOp)
		switch op.kind {
		case "acquire": // a term begins: nobody else's is live, and its token is new
			return s.live == 0 && op.token > s.last, lock{live: op.token, record: op.token, last: op.token}
		case "orphan": // an acquire whose caller never heard of it: the record is there, no term is
			return s.live == 0 && op.token > s.last, lock{record: op.token, last: op.token}
		case "live":
			return s.live == op.token, s
		case "end":
			if s.live == op.token {
				s.live = 0
				return true, s
			}
			return false, s
		case "clear": // the record of an ended term goes, or it is another's already
			if s.record == op.token && s.live != op.token {
				s.record = 0
			}
			return true, s
		case "release": // a confirmed one: from here on the record is gone
			if s.live == op.token {
				return false, s
			}
			if s.record == op.token {
				s.record = 0
			}
			return true, s
		case "read":
			return s.record == op.token, s
		}
		panic(op.kind)
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprint(input) },
}

// lockOperations turns what was seen into operations of the model. What makes no sense as a history at all is an error.
func (h *history) lockOperations() ([]porcupine.Operation, map[string]int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ops []porcupine.Operation
	counts := map[string]int{}
	add := func(kind string, token uint64, call, ret int64) {
		counts[kind]++
		ops = append(ops, porcupine.Operation{Input: lockOp{kind, token}, Call: call, Return: ret})
	}
	holders := map[uint64]string{}
	began := map[uint64]int64{} // by when the term's write had landed
	for _, t := range h.terms {
		if holders[t.token] != "" {
			return nil, nil, fmt.Errorf("L2: token %d was given to two terms", t.token)
		}
		holders[t.token], began[t.token] = t.by.id, t.ret
		add("acquire", t.token, h.sent(t), t.ret)
		if t.end != 0 {
			add("end", t.token, t.live, t.end)
		}
	}
	// A read may show a token that nobody was told: of a campaign that was given up, or whose process was killed; or of one that was won, by another write of
	// it, which came too late to count and was removed again.
	for _, r := range h.reads {
		if r.token == 0 || holders[r.token] != "" {
			continue
		}
		call := never
		for _, a := range h.attempts {
			if a.holder == r.holder {
				call = min(call, a.call)
			}
		}
		if call >= r.ret {
			return nil, nil, fmt.Errorf("a read shows token %d of %s, who did not campaign", r.token, r.holder)
		}
		holders[r.token] = r.holder
		// It had landed when it was first read.
		for _, other := range h.reads {
			if other.token == r.token && (began[r.token] == 0 || other.ret < began[r.token]) {
				began[r.token] = other.ret
			}
		}
		add("orphan", r.token, call, began[r.token])
	}
	// What became of the record when the term was over: removed by its author, by its time to live, or replaced. No later than the next term.
	released := map[uint64]*term{}
	for _, t := range h.terms {
		if t.resigned != 0 {
			released[t.token] = t
		}
	}
	for token := range holders {
		bound := never
		for other, at := range began {
			if other > token {
				bound = min(bound, at)
			}
		}
		if t := released[token]; t != nil {
			add("release", token, t.resign, t.resigned)
		} else {
			call := int64(0)
			for _, t := range h.terms {
				if t.token == token {
					call = t.call
				}
			}
			add("clear", token, call, bound)
		}
	}
	for _, s := range h.seen {
		add("live", s.token, s.call, s.ret)
	}
	for _, r := range h.reads {
		if r.token != 0 && r.holder != holders[r.token] {
			return nil, nil, fmt.Errorf("a read shows token %d of %s, which is that of %s", r.token, r.holder, holders[r.token])
		}
		add("read", r.token, r.call, r.ret)
	}
	for _, a := range h.attempts {
		if a.won == nil {
			counts["unanswered"]++
		}
	}
	return ops, counts, nil
}

// sent is from when on the write of a term may have landed: from its campaign's call on; or, if its record was read before that, from that of the campaign before
// it, which was given up in the moment in which its write was answered: then the process's next campaign is given the term. The lock is held.
func (h *history) sent(t *term) int64 {
	call := t.call
	for _, r := range h.reads {
		if r.token != t.token || r.ret > t.call {
			continue
		}
		last := int64(0)
		for _, a := range h.attempts {
			if a.by == t.by && a.won == nil && a.call < r.ret && a.over != 0 && a.over < t.call {
				last = max(last, a.call)
			}
		}
		if last != 0 {
			call = min(call, last)
		}
	}
	return call
}

// ---- the register

type register struct {
	token uint64
	value string
}

type registerOp struct {
	kind  string
	token uint64
	value string
	newer uint64
}

// registerModel is the sequential register behind a guard.
var registerModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{register{}} },
	Step: func(state, input, _ any) []any {
		s, op := state.(register), input.(registerOp)
		after := register{op.token, op.value}
		switch op.kind {
		case "accepted":
			if op.token >= s.token {
				return []any{after}
			}
			return nil
		case "perhaps": // without an answer
			if op.token >= s.token {
				return []any{s, after}
			}
			return []any{s}
		case "refused":
			if s.token == op.newer && op.newer > op.token {
				return []any{s}
			}
			return nil
		case "read":
			if s == after {
				return []any{s}
			}
			return nil
		}
		panic(op.kind)
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprint(input) },
}

// registerOperations turns what was seen into operations of the model.
func (h *history) registerOperations() ([]porcupine.Operation, map[string]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ops []porcupine.Operation
	counts := map[string]int{}
	add := func(call, ret int64, op registerOp) {
		counts[op.kind]++
		ops = append(ops, porcupine.Operation{Input: op, Call: call, Return: ret})
	}
	for _, w := range h.writes {
		op := registerOp{token: w.token, value: w.value}
		ret := w.ret
		switch w.out {
		case accepted:
			op.kind = "accepted"
			if w.late {
				counts["late, accepted"]++
			}
		case refused:
			op.kind, op.newer = "refused", w.newer
			if w.late {
				counts["late, refused"]++
			}
		case nothing:
			counts["nothing"]++
			continue
		default:
			// Nothing was sent for it after ret. What was sent before demands a revision that another write, called after ret and accepted, has
			// replaced: from then on it cannot land any more.
			op.kind, ret = "perhaps", never
			for _, o := range h.writes {
				if w.ret != 0 && o.out == accepted && o.call > w.ret {
					ret = min(ret, o.ret)
				}
			}
		}
		add(w.call, ret, op)
	}
	for _, g := range h.gets {
		add(g.call, g.ret, registerOp{kind: "read", token: g.token, value: g.value})
	}
	return ops, counts
}

// check has porcupine decide, outside of virtual time. A check that does not end decides nothing, which is a failure too.
func check(t *testing.T, rule string, m porcupine.Model, ops []porcupine.Operation) {
	t.Helper()
	start := time.Now()
	result := porcupine.CheckOperationsTimeout(m, ops, time.Minute)
	switch result {
	case porcupine.Ok:
		t.Logf("%d operations are linearizable (%v)", len(ops), time.Since(start).Round(time.Millisecond))
	case porcupine.Illegal:
		t.Errorf("%s: the history is not linearizable; around where it breaks:\n%s", rule, around(m, ops))
	default:
		t.Errorf("%s: no decision about %d operations within a minute", rule, len(ops))
	}
}

// around tells where the longest order that fits a beginning of the history ends: what had to come next and could not.
func around(m porcupine.Model, ops []porcupine.Operation) string {
	_, info := porcupine.CheckOperationsVerbose(m, ops, time.Minute)
	var best []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, l := range partition {
			if len(l) > len(best) {
				best = l
			}
		}
	}
	type key struct {
		input     any
		call, ret int64
	}
	in := map[key]bool{}
	var b strings.Builder
	tell := func(mark string, o porcupine.Operation) {
		ret := fmt.Sprint(o.Return)
		if o.Return == never {
			ret = "?"
		}
		fmt.Fprintf(&b, "%s %8d %8s  %+v\n", mark, o.Call, ret, o.Input)
	}
	for i, o := range best {
		in[key{o.Input, o.Call, o.Return}] = true
		if i >= len(best)-20 {
			tell("    ", o)
		}
	}
	left := slices.DeleteFunc(slices.Clone(ops), func(o porcupine.Operation) bool { return in[key{o.Input, o.Call, o.Return}] })
	slices.SortFunc(left, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	for _, o := range left[:min(len(left), 10)] {
		tell("left", o)
	}
	return b.String()
}
