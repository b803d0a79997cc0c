package coord_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// said collects what a process logs.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// differences are the reports of another setting than the group's.
func (s *said) differences() (l []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.b.String()) {
		if strings.Contains(line, "set otherwise") {
			l = append(l, strings.TrimSpace(line))
		}
	}
	return l
}

func logged(cfg quorate.Config) (quorate.Config, *said) {
	s := &said{}
	cfg.Logger = slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return cfg, s
}

// Design 4.5: who is set otherwise than its group follows it, and says so once, naming both.
func TestDifferenceReportedOnce(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		start := func(id string, cfg quorate.Config, p partition.Config) *said {
			cfg, s := logged(cfg)
			g := join(t, e.Namespace(cfg), id)
			if _, err := partition.Join(t.Context(), g, p); err != nil {
				t.Fatal(err)
			}
			return s
		}
		same := partition.Config{Settle: 200 * time.Millisecond}
		a, b := start("a", quorate.Config{}, same), start("b", quorate.Config{}, same)
		c, d := start("c", quorate.Config{Lease: 5 * lease}, same), start("d", quorate.Config{}, partition.Config{})
		f := start("f", quorate.Config{}, partition.Config{Settle: lease})
		time.Sleep(time.Minute)
		for name, s := range map[string]*said{"a": a, "b": b, "d": d} {
			if l := s.differences(); len(l) != 0 {
				t.Errorf("%s is set like the group, or not at all: %q", name, l)
			}
		}
		for want, s := range map[string]*said{"lease 15s here, 3s in the group": c, "settle 3s here, 200ms in the group": f} {
			if l := s.differences(); len(l) != 1 || !strings.Contains(l[0], want) {
				t.Errorf("got %q, want one line with %q", l, want)
			}
		}
	})
}

// Design 4.5: a group of five is rolled from a lease of 3 s to 15 s and back, member by member, by restarts and by crashes. The watchers see no overlap
// of terms or shares at any moment; tokens grow; and each process that is set otherwise than its group says so once.
func TestRollingLease(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		type process struct {
			ns  *quorate.Namespace
			g   *coord.Group
			p   *partition.Partition
			log *said
		}
		start := func(id string, l time.Duration) *process {
			cfg, log := logged(quorate.Config{Lease: l})
			p := &process{ns: e.Namespace(cfg), log: log}
			p.g = join(t, p.ns, id)
			var err error
			if p.p, err = partition.Join(t.Context(), p.g, partition.Config{}); err != nil {
				t.Fatal(err)
			}
			return p
		}
		ids := []string{"a", "b", "c", "d", "e"}
		all := map[string]*process{}
		for _, id := range ids {
			all[id] = start(id, lease)
		}
		ctx, cancel := context.WithCancel(t.Context())
		tokens, done := []uint64{}, make(chan struct{})
		c := client(t, e.Namespace())
		go func() {
			defer close(done)
			for v := range c.Watch(ctx) {
				if s := v.Leader; s.Holder != "" && (len(tokens) == 0 || tokens[len(tokens)-1] != s.Token) {
					tokens = append(tokens, s.Token)
				}
			}
		}()
		time.Sleep(5 * lease)
		total := 0
		reports := func(when string, p *process, want string) {
			t.Helper()
			l := p.log.differences()
			if len(l) > 1 || len(l) == 1 && !strings.Contains(l[0], want) {
				t.Errorf("%s: %s reports %q, want one line with %q at most", when, p.g.ID(), l, want)
			}
			total += len(l)
		}
		was := lease
		for _, to := range []time.Duration{5 * lease, lease} {
			want := fmt.Sprintf("lease %v here, %v in the group", to, was)
			for i, id := range ids {
				old := all[id]
				if i%2 == 0 {
					if err := old.ns.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
				} else {
					e.Kill(old.ns)
				}
				reports("gone", old, fmt.Sprintf("lease %v here, %v in the group", was, to))
				all[id] = start(id, to)
				time.Sleep(3 * max(to, was))
			}
			time.Sleep(5 * max(to, was))
			gens := map[uint64]int{}
			for _, id := range ids {
				if a, ok := all[id].p.Assignment(); ok && a.Total == len(ids) {
					gens[a.Generation]++
				}
				reports("rolled to "+to.String(), all[id], want)
			}
			if len(gens) != 1 {
				t.Errorf("rolled to %v: generations held %v, want one by five", to, gens)
			}
			if s, err := c.Leader(t.Context()); err != nil || s.Lease != to {
				t.Errorf("rolled to %v: the leader counts with %v, %v", to, s.Lease, err)
			}
			was = to
		}
		if total < 8 {
			t.Errorf("%d reports only", total)
		}
		cancel()
		<-done
		if !slices.IsSorted(tokens) || len(tokens) < 4 {
			t.Errorf("L2: tokens %v", tokens)
		}
		t.Logf("%d terms, %d reports", len(tokens), total)
	})
}
