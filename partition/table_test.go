package partition_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// TestOwner: who is no member finds the owner of a key, with and without buckets, and what the owners themselves say agrees.
func TestOwner(t *testing.T) {
	for _, buckets := range []int{-1, 16} {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			c, err := coord.Open(t.Context(), e.Namespace(), "g")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := partition.Owner(t.Context(), c, "x"); !errors.Is(err, partition.ErrNoOwner) {
				t.Errorf("owner in a group that does not exist: %v, want ErrNoOwner", err)
			}
			var ps []*partition.Partition
			for i := range 3 {
				g, err := coord.Join(t.Context(), e.Namespace(), "g", coord.Config{ID: fmt.Sprint("w", i), Meta: map[string]string{"n": fmt.Sprint(i)}})
				if err != nil {
					t.Fatal(err)
				}
				p, err := partition.Join(t.Context(), g, partition.Config{Buckets: buckets})
				if err != nil {
					t.Fatal(err)
				}
				ps = append(ps, p)
			}
			first, err := partition.Owner(t.Context(), c, "key0") // waits until the group has settled
			for err != nil && errors.Is(err, partition.ErrNoOwner) {
				time.Sleep(lease / 10)
				first, err = partition.Owner(t.Context(), c, "key0")
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(lease / 10) // the owners are told after it is on record
			table, err := partition.Lookup(t.Context(), c)
			if err != nil || table.Total != 3 || table.Buckets != max(buckets, 0) {
				t.Fatalf("table %+v, %v", table, err)
			}
			for i := range 100 {
				key := fmt.Sprint("key", i)
				s, ok := table.Owner(key)
				if !ok || s.Member == "" || s.Moving {
					t.Fatalf("owner of %s: %+v", key, s)
				}
				if i == 0 && (first.ID != s.Member || first.Meta["n"] != first.ID[1:] || first.Index != s.Index) {
					t.Errorf("Owner says %+v, the table %+v", first, s)
				}
				for k, p := range ps {
					a, _ := p.Assignment()
					if owns := s.Member == fmt.Sprint("w", k); a.Owns(key) != owns {
						t.Errorf("w%d says of %s %v, the table names %s", k, key, a.Owns(key), s.Member)
					}
					if b, ok := p.Bucket(key); ok && (b.N != s.Bucket || b.Token() != s.Token) {
						t.Errorf("w%d has %s in bucket %d with token %d, the table says %+v", k, key, b.N, b.Token(), s)
					}
				}
			}
			if s := table.Share(99); s.Member != "" || s.Token != 0 {
				t.Errorf("a share that does not exist: %+v", s)
			}
		})
	}
}

// TestTables: a router that is no member hears of each generation, and of what changes hands meanwhile.
func TestTables(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := e.Namespace()
		c, err := coord.Open(t.Context(), ns, "g")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		told, ended := make(chan partition.Table, 100), make(chan error, 1)
		go func() {
			var last error
			for x, err := range partition.Tables(ctx, c) {
				if last = err; err == nil {
					told <- x
				}
			}
			ended <- last
		}()
		next := func() partition.Table {
			t.Helper()
			select {
			case x := <-told:
				return x
			case <-time.After(time.Minute):
				t.Fatal("nothing was told")
				return partition.Table{}
			}
		}
		if x := next(); x.Generation != 0 || x.Total != 0 {
			t.Errorf("at first %+v", x)
		}
		a := keep(t, e.Namespace(), "a", partition.Config{Buckets: 4}, lease/3)
		x := next()
		for x.Total == 0 {
			x = next()
		}
		b := keep(t, e.Namespace(), "b", partition.Config{Buckets: 4}, 0)
		for !x.Settling {
			x = next()
		}
		moving := 0
		for n := range 4 {
			s := x.Share(n)
			if s.Member != "a" {
				t.Errorf("bucket %d is %s's while settling, want a's", n, s.Member)
			}
			if s.Moving {
				moving++
			}
		}
		if moving != 2 {
			t.Errorf("%d buckets move, want 2", moving)
		}
		for x.Settling {
			x = next()
		}
		time.Sleep(lease)
		dealt(t, 4, a, b)
		e.Cut(ns)
		e.Kill(b.ns)
		for !x.Stale {
			x = next()
		}
		e.Heal(ns)
		for x.Stale || x.Total != 1 {
			x = next()
		}
		c.Close()
		if err := <-ended; err == nil {
			t.Error("Tables ended without an error when its client was closed")
		}
	})
}
