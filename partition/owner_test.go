package partition

import (
	"fmt"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// The vectors stand in docs/protocol.md too.
func TestMapVectors(t *testing.T) {
	for _, v := range []struct {
		key   uint64
		total int
		want  int
	}{{1, 1, 0}, {42, 57, 43}, {0xDEAD10CC, 1, 0}, {0xDEAD10CC, 666, 361}, {256, 1024, 520}} {
		if got := jump(v.key, v.total); got != v.want {
			t.Errorf("jump(%#x, %d) = %d, want %d", v.key, v.total, got, v.want)
		}
	}
	for text, want := range map[string]uint64{"": 0xef46db3751d8e999, "a": 0xd24ec4f1a98c6e5b, "abc": 0x44bc2cf5ad770999} {
		if got := xxhash.Sum64String(text); got != want {
			t.Errorf("xxh64(%q) = %#x, want %#x", text, got, want)
		}
	}
	for _, v := range []struct {
		key   string
		total int
		want  int
	}{{"", 5, 2}, {"a", 5, 1}, {"abc", 5, 3}, {"orders/17", 5, 2}, {"orders/17", 16, 10}, {"ä", 3, 1}} {
		if got := Index(v.key, v.total); got != v.want {
			t.Errorf("Index(%q, %d) = %d, want %d", v.key, v.total, got, v.want)
		}
	}
	if got := Index("a", 0); got != -1 {
		t.Errorf("Index of no total = %d, want -1", got)
	}
}

// With sticky indexes a join moves 1/n of the keys, and each share is about as large as any other.
func TestMapMovesLittle(t *testing.T) {
	const keys = 20000
	for total := 1; total < 20; total++ {
		moved := 0
		count := make([]int, total+1)
		for i := range keys {
			key := fmt.Sprint("key ", i)
			before, after := Index(key, total), Index(key, total+1)
			if before != after {
				moved++
				if after != total {
					t.Fatalf("%q moved from %d to %d of %d: only the newcomer may gain", key, before, after, total+1)
				}
			}
			count[after]++
		}
		if want := keys / (total + 1); moved < want*8/10 || moved > want*12/10 {
			t.Errorf("a join as number %d moved %d of %d keys, want about %d", total+1, moved, keys, want)
		}
		for i, n := range count {
			if want := keys / (total + 1); n < want*8/10 || n > want*12/10 {
				t.Errorf("index %d of %d owns %d of %d keys, want about %d", i, total+1, n, keys, want)
			}
		}
	}
}
