package coord_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/testenv"
)

// What a member says about itself can be changed while it is one, and reaches everybody; whether it has is never guessed.
func TestSetMeta(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		nb := e.Namespace()
		b, err := coord.Join(t.Context(), nb, "g", coord.Config{ID: "b", Meta: map[string]string{"zone": "1"}})
		if err != nil {
			t.Fatal(err)
		}
		c := client(t, e.Namespace())
		ctx, cancel := context.WithCancel(t.Context())
		w, wb := watch(ctx, c), watch(ctx, b.Client)
		time.Sleep(lease / 10)
		w.take()
		inc := b.Inner().Place().Incarnation
		want := func(where string, what map[string]string) {
			t.Helper()
			time.Sleep(10 * time.Millisecond)
			ms, err := c.Members(t.Context())
			if err != nil || len(ms) != 2 || fmt.Sprint(ms[1].Meta) != fmt.Sprint(what) {
				t.Errorf("%s: the leader tells %+v, %v; want %v", where, ms, err, what)
			}
			for _, l := range []*log{w, wb} {
				if v := l.view(); len(v.Members) != 2 || fmt.Sprint(v.Members[1].Meta) != fmt.Sprint(what) {
					t.Errorf("%s: watch shows %v, want %v", where, v.Members, what)
				}
			}
			if got := w.take(); got != "" || b.Inner().Place().Incarnation != inc {
				t.Errorf("%s: a change of metadata told %q, or made another incarnation", where, got)
			}
		}
		want("joined", map[string]string{"zone": "1"})
		meta := map[string]string{"zone": "2", "load": "0.5"}
		if err := b.SetMeta(t.Context(), meta); err != nil {
			t.Fatal(err)
		}
		meta["zone"] = "changed by its owner"
		want("changed", map[string]string{"zone": "2", "load": "0.5"})
		if err := b.SetMeta(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		want("removed", nil)

		for _, c := range []struct {
			meta map[string]string
			says string
		}{
			{map[string]string{"k": strings.Repeat("x", wire.MaxMeta)}, "metadata of 4097 bytes"},
			{map[string]string{"": "x"}, "empty key"},
			{map[string]string{"k": "\xff"}, `"k" is not UTF-8`},
		} {
			if err := b.SetMeta(t.Context(), c.meta); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.says)
			}
			if _, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{Meta: c.meta}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("join: got %v, want %q", err, c.says)
			}
		}
		if err := b.SetMeta(t.Context(), map[string]string{"k": strings.Repeat("x", wire.MaxMeta-1)}); err != nil {
			t.Errorf("4096 bytes: %v", err)
		}

		// An unanswered write is found by its nonce, one that cannot be sent is sent later: the caller is told that it is not known.
		e.Link(nb).DropAcks(3)
		if err := b.SetMeta(t.Context(), map[string]string{"n": "1"}); err != nil {
			t.Errorf("L4: with acknowledgements lost: %v", err)
		}
		want("acknowledgements lost", map[string]string{"n": "1"})
		e.Cut(nb)
		short, end := context.WithTimeout(t.Context(), lease/2)
		err = b.SetMeta(short, map[string]string{"n": "2"})
		end()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not confirmed yet") {
			t.Errorf("cut off: got %v", err)
		}
		short, end = context.WithTimeout(t.Context(), lease/10)
		if err := b.SetMeta(short, map[string]string{"n": "3"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cut off: got %v", err)
		}
		end()
		e.Heal(nb)
		time.Sleep(lease)
		want("cut off and back", map[string]string{"n": "3"})

		// Another leader knows it by the record; a restart of the incarnation keeps it.
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease)
		if ms, err := c.Members(t.Context()); err != nil || len(ms) != 1 || ms[0].Meta["n"] != "3" || !ms[0].Leader {
			t.Errorf("another leader tells %+v, %v", ms, err)
		}
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.SetMeta(t.Context(), nil); !errors.Is(err, coord.ErrLeft) {
			t.Errorf("after it left: %v, want ErrLeft", err)
		}
		cancel()
		<-w.done
		<-wb.done
	})
}

// A member that expired and joins again by itself says what it said last.
func TestSetMetaRejoin(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := join(t, e.Namespace(), "a")
		nb := e.Namespace()
		b := join(t, nb, "b")
		time.Sleep(lease)
		inc := b.Inner().Place().Incarnation
		e.Cut(nb)
		set := make(chan error)
		go func() { set <- b.SetMeta(t.Context(), map[string]string{"n": "1"}) }()
		time.Sleep(5 * lease)
		e.Heal(nb)
		if err := <-set; err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lease)
		ms, err := a.Members(t.Context())
		if err != nil || len(ms) != 2 || ms[1].Meta["n"] != "1" || ms[1].Incarnation == inc || !b.Live() {
			t.Errorf("%+v, %v", ms, err)
		}
	})
}

func TestFilter(t *testing.T) {
	all := []coord.Member{
		{ID: "a", Status: coord.Alive, Roles: []string{coord.RoleLead, coord.RoleWork}, Meta: map[string]string{"zone": "1", "gpu": ""}},
		{ID: "b", Status: coord.Late, Roles: []string{coord.RoleWork, coord.RoleVote}, Meta: map[string]string{"zone": "2"}},
		{ID: "c", Status: coord.Alive},
	}
	for _, c := range []struct {
		f    coord.Filter
		want string
	}{
		{coord.Filter{}, "a:alive b:late c:alive "},
		{coord.Filter{Role: coord.RoleWork}, "a:alive b:late "},
		{coord.Filter{Role: coord.RoleWork, Status: coord.Alive}, "a:alive "},
		{coord.Filter{Status: coord.Late}, "b:late "},
		{coord.Filter{Meta: map[string]string{"zone": "2"}}, "b:late "},
		{coord.Filter{Meta: map[string]string{"gpu": ""}}, "a:alive "},
		{coord.Filter{Meta: map[string]string{"zone": "1", "gpu": "x"}}, ""},
		{coord.Filter{Role: "none"}, ""},
	} {
		if got := ids(c.f.Select(all)); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.f, got, c.want)
		}
	}
}
