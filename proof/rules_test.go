package proof_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// lines is a log: of each record what it says, and with which attributes.
type lines struct {
	mu  *sync.Mutex
	all *[]logged
	own map[string]string
}

type logged struct {
	level slog.Level
	text  string
	attrs map[string]string
}

func newLines() lines { return lines{new(sync.Mutex), new([]logged), map[string]string{}} }

func (l lines) Enabled(context.Context, slog.Level) bool { return true }
func (l lines) WithGroup(string) slog.Handler            { return l }

func (l lines) with(attrs []slog.Attr) map[string]string {
	m := map[string]string{}
	for k, v := range l.own {
		m[k] = v
	}
	for _, a := range attrs {
		m[a.Key] = a.Value.String()
	}
	return m
}

func (l lines) WithAttrs(attrs []slog.Attr) slog.Handler { return lines{l.mu, l.all, l.with(attrs)} }

func (l lines) Handle(_ context.Context, r slog.Record) error {
	var attrs []slog.Attr
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.all = append(*l.all, logged{r.Level, r.Message, l.with(attrs)})
	return nil
}

// R40: each line says of which election or group it is, and who says it; those of a term which term, and why it ended; those of a member which incarnation. R20: nothing
// of it all is a JetStream consumer.
func TestLogsSayWhich(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		log := newLines()
		cfg := quorate.Config{Logger: slog.New(log)}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		var all []*quorate.Namespace
		var groups []*coord.Group
		for _, id := range []string{"a", "b", "c"} {
			ns := e.Namespace(cfg)
			el, err := leader.New(ns, "reports", leader.Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				_ = el.Run(ctx, func(ctx context.Context, _ *leader.Term) error { <-ctx.Done(); return nil }) // until it is closed
			})
			g, err := coord.Join(ctx, ns, "workers", coord.Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			p, err := partition.Join(ctx, g, partition.Config{})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				_ = p.Run(ctx, func(ctx context.Context, _ *partition.Assignment) error { <-ctx.Done(); return nil }) // until it leaves
			})
			if _, err := vote.Join(ctx, g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() }}); err != nil {
				t.Fatal(err)
			}
			all, groups = append(all, ns), append(groups, g)
		}
		lease := quorate.DefaultLease
		time.Sleep(3 * lease)
		if _, err := vote.Propose(ctx, groups[1].Client, vote.Proposal{Topic: "go"}); err != nil {
			t.Fatal(err)
		}
		nc, _ := e.Connect("operator")
		answer, err := nc.RequestWithContext(ctx, "$JS.API.CONSUMER.NAMES."+wire.Stream(wire.DefaultName), nil)
		if err != nil {
			t.Fatal(err)
		}
		var consumers struct {
			Total     *int
			Consumers []string
		}
		if err := json.Unmarshal(answer.Data, &consumers); err != nil || consumers.Total == nil || *consumers.Total != 0 {
			t.Errorf("R20: the bucket has consumers: %s, %v", answer.Data, err)
		}
		e.Cut(all[0]) // leads both: both terms run out
		time.Sleep(4 * lease)
		e.Heal(all[0])
		time.Sleep(4 * lease)
		if err := groups[1].StepDown(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(lease)
		if err := groups[1].Evict(ctx, "c"); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * lease)
		cancel()
		for _, g := range groups {
			_ = g.Leave(t.Context()) // one was evicted
		}

		log.mu.Lock()
		defer log.mu.Unlock()
		seen := map[string]int{}
		for _, l := range *log.all {
			seen[l.text]++
			if l.attrs["namespace"] != wire.DefaultName {
				t.Errorf("R40: %q: of no namespace: %v", l.text, l.attrs)
			}
			if strings.HasPrefix(l.text, "connection") || l.attrs["bucket"] != "" {
				continue // of the namespace, and all that is in it
			}
			if l.attrs["election"] == "" && l.attrs["group"] == "" {
				t.Errorf("R40: %q: of no election or group: %v", l.text, l.attrs)
			}
			if l.attrs["member"] == "" {
				t.Errorf("R40: %q: nobody says it: %v", l.text, l.attrs)
			}
			switch l.text {
			case "term began":
				if l.attrs["term"] == "" {
					t.Errorf("R40: %q: which term? %v", l.text, l.attrs)
				}
			case "term ended":
				if l.attrs["term"] == "" || l.attrs["cause"] == "" || l.attrs["held"] == "" {
					t.Errorf("R40: %q: which, why, how long? %v", l.text, l.attrs)
				}
			case "member", "no member any more":
				if l.attrs["incarnation"] == "" {
					t.Errorf("R40: %q: which one? %v", l.text, l.attrs)
				}
			}
		}
		for _, text := range []string{"term began", "term ended", "member", "no member any more"} {
			if seen[text] == 0 {
				t.Errorf("nobody said %q: %v", text, seen)
			}
		}
	})
}
