package partition_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/quorate/quorate/internal/settle"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/partition"
)

// A sharing says whose a key is among some members: before a change, and after it.
type sharing struct {
	name string
	// owners gives a function from keys to ids, for the members before and after a change.
	owners func(before, after []string) (was, is func(key string) string)
}

// sharings are the ways that docs/shares.md compares.
func sharings() []sharing {
	sticky := func(before, after []string) (a, b []wire.Place) {
		a = settle.Sticky(nil, placesOf(before))
		return a, settle.Sticky(a, placesOf(after))
	}
	byIndex := func(index func(key string, total int) int) func(before, after []string) (was, is func(string) string) {
		return func(before, after []string) (was, is func(string) string) {
			a, b := sticky(before, after)
			owner := func(places []wire.Place) func(string) string {
				return func(key string) string { return places[index(key, len(places))].ID }
			}
			return owner(a), owner(b)
		}
	}
	buckets := func(n int) sharing {
		return sharing{fmt.Sprint(n, " buckets"), func(before, after []string) (was, is func(string) string) {
			a, b := sticky(before, after)
			first := settle.Spread(slices.Repeat([]int{-1}, n), takers(len(a)), nil, nil)
			now := make([]int, n) // by the new places
			for k, o := range first {
				now[k] = slices.IndexFunc(b, func(p wire.Place) bool { return p.ID == a[o].ID })
			}
			then := settle.Spread(now, takers(len(b)), nil, nil)
			owner := func(places []wire.Place, owners []int) func(string) string {
				return func(key string) string { return places[owners[partition.BucketOf(key, n, "")]].ID }
			}
			return owner(a, first), owner(b, then)
		}}
	}
	rendezvous := func(members []string) func(string) string {
		return func(key string) (best string) {
			most := uint64(0)
			for _, m := range members {
				if h := xxhash.Sum64String(m + "\x00" + key); h >= most {
					most, best = h, m
				}
			}
			return best
		}
	}
	return []sharing{
		{"by index", byIndex(partition.Index)},
		buckets(256),
		buckets(4096),
		{"rendezvous", func(before, after []string) (was, is func(string) string) {
			return rendezvous(before), rendezvous(after)
		}},
		{"hash % total", byIndex(func(key string, total int) int { return int(xxhash.Sum64String(key) % uint64(total)) })},
	}
}

func placesOf(ids []string) (l []wire.Place) {
	for _, id := range ids {
		l = append(l, wire.Place{ID: id, Incarnation: 1})
	}
	return l
}

func takers(n int) []settle.Taker { return slices.Repeat([]settle.Taker{{Weight: 1}}, n) }

func ids(n int) (l []string) {
	for i := range n {
		l = append(l, fmt.Sprintf("member-%d", i))
	}
	return l
}

// TestKeysMoved measures how many of 20,000 keys change hands when a member joins or leaves, and how much more than its part the member with most has,
// by each way to share, and compares that with the tables of docs/shares.md.
func TestKeysMoved(t *testing.T) {
	const keys = 20000
	var moved, most strings.Builder
	head := "| |"
	for _, s := range sharings() {
		head += " " + s.name + " |"
	}
	rule := "|---|" + strings.Repeat("---|", len(sharings())) + "\n"
	moved.WriteString(strings.Replace(head, "| |", "| members | at least |", 1) + "\n" + strings.Replace(rule, "|---|", "|---|---|", 1))
	most.WriteString(strings.Replace(head, "| |", "| members |", 1) + "\n" + rule)
	for _, n := range []int{3, 10, 100} {
		before := ids(n)
		gone := slices.Delete(slices.Clone(before), n/3, n/3+1)
		for _, after := range [][]string{ids(n + 1), gone} {
			fmt.Fprintf(&moved, "| %d to %d | %.1f %% |", n, len(after), 100/float64(max(n, len(after))))
			for _, s := range sharings() {
				was, is := s.owners(before, after)
				count := 0
				for i := range keys {
					if key := fmt.Sprint("key-", i); was(key) != is(key) {
						count++
					}
				}
				fmt.Fprintf(&moved, " %.1f %% |", 100*float64(count)/keys)
			}
			moved.WriteString("\n")
		}
		fmt.Fprintf(&most, "| %d |", n)
		for _, s := range sharings() {
			was, _ := s.owners(before, before)
			count := map[string]int{}
			for i := range keys {
				count[was(fmt.Sprint("key-", i))]++
			}
			high := 0
			for _, c := range count {
				high = max(high, c)
			}
			fmt.Fprintf(&most, " %+.0f %% |", 100*(float64(high*n)/keys-1))
		}
		most.WriteString("\n")
	}
	doc, err := os.ReadFile("../docs/shares.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{moved.String(), most.String()} {
		if !strings.Contains(string(doc), table) {
			t.Errorf("docs/shares.md has not got this table:\n%s", table)
		}
	}
}
