package partition_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// TestServerTransform: the NATS server's own {{partition(n,...)}} and HashNATS put a key into the same bucket: in streams, with one token, several,
// and the whole subject.
func TestServerTransform(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		nc := e.Namespace().Inner().Store.Conn()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		keys := []string{"a", "item-1", "größe", "4711", "The_quick_brown_fox"}
		for i := range 200 {
			keys = append(keys, fmt.Sprint("customer-", i))
		}
		for i, c := range []struct {
			source, dest string // the bucket is the last token but the key
			subject, key func(k string) string
		}{
			{"one.*", "p.{{partition(%d,1)}}.{{wildcard(1)}}", func(k string) string { return "one." + k }, func(k string) string { return k }},
			{"two.*.*", "p.{{partition(%d,1,2)}}.{{wildcard(2)}}", func(k string) string { return "two.x." + k }, func(k string) string { return "x" + k }},
			{"all.*", "p.{{partition(%d)}}.{{wildcard(1)}}", func(k string) string { return "all." + k }, func(k string) string { return "all." + k }},
		} {
			for _, n := range []int{1, 7, 64} {
				name := fmt.Sprintf("S%d_%d", i, n)
				s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Storage: jetstream.MemoryStorage, Subjects: []string{fmt.Sprintf("%d.%d.", i, n) + c.source},
					SubjectTransform: &jetstream.SubjectTransformConfig{Source: fmt.Sprintf("%d.%d.", i, n) + c.source, Destination: fmt.Sprintf(c.dest, n)}})
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range keys {
					ack, err := js.Publish(t.Context(), fmt.Sprintf("%d.%d.", i, n)+c.subject(k), nil)
					if err != nil {
						t.Fatal(err)
					}
					m, err := s.GetMsg(t.Context(), ack.Sequence)
					if err != nil {
						t.Fatal(err)
					}
					key := c.key(k)
					if i == 2 {
						key = fmt.Sprintf("%d.%d.", i, n) + key // the whole subject, as it was published
					}
					want := fmt.Sprintf("p.%d.%s", partition.BucketOf(key, n, partition.HashNATS), k)
					if m.Subject != want {
						t.Fatalf("%s: the server stored %s, want %s", c.dest, m.Subject, want)
					}
				}
			}
		}
	})
}
