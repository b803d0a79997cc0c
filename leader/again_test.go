package leader_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// L5: where nobody else waits a released leadership is taken again at once, by the same elector and by a new process.
func TestAcquireAgain(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a := elector(t, open(e), "a")
		for i := range 20 {
			for _, el := range []*leader.Elector{a, nil} {
				if el == nil {
					el = elector(t, open(e), fmt.Sprintf("new-%d", i))
				}
				start := time.Now()
				term := campaign(t, el)
				between(t, "L5: acquire by "+el.ID(), time.Since(start), 0, instant)
				if err := term.Resign(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(short) // what a's elector has heard of the others is old
		}
	})
}

// L5, D2: two that resign and campaign in turn, and never wait: each release names who has just begun to wait.
func TestBackToBack(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		watcher := open(e)
		el := []*leader.Elector{elector(t, open(e), "c0"), elector(t, open(e), "c1")}
		said := make(chan string, 200)
		stop, err := watcher.Inner().Store.Hints(wire.ElectionKey("job"), func(e kv.Entry) {
			if e.Op == kv.Marker {
				said <- fmt.Sprint(e.Queue)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		time.Sleep(instant)
		term := campaign(t, el[0])
		const rounds = 50
		for i := range rounds {
			won := win(t, el[(i+1)%2])
			time.Sleep(instant) // it has begun to wait, and told it
			if err := term.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			var took time.Duration
			term, took = within(t, won)
			between(t, fmt.Sprintf("L5: hand-over %d", i), took, 0, instant)
		}
		time.Sleep(instant)
		queues := drain(said)
		for i, q := range queues {
			if want := fmt.Sprintf("[c%d]", (i+1)%2); q != want {
				t.Errorf("release %d says that %s wait, want %s", i, q, want)
			}
		}
		if len(queues) != rounds {
			t.Errorf("%d releases", len(queues))
		}
	})
}

// D2: a new holder is told at once who waits, also by those whom its predecessor's release did not name; its own record and release name them.
func TestNewHolderIsTold(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		first := campaign(t, elector(t, open(e), "first"))
		var won []<-chan *leader.Term
		for i := range 6 {
			won = append(won, win(t, elector(t, open(e), fmt.Sprintf("c%d", i))))
			time.Sleep(short / 40) // those within the same millisecond have no order
		}
		watcher := open(e)
		said := make(chan string, 200)
		stop, err := watcher.Inner().Store.Hints(wire.ElectionKey("job"), func(e kv.Entry) {
			if e.Op == kv.Marker {
				said <- strings.Join(e.Queue, " ")
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		time.Sleep(instant)
		term := first // its record, written once, names nobody
		for i := range won {
			if err := term.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			select {
			case term = <-won[i]:
			case <-time.After(instant):
				for j := range won {
					if len(won[j]) > 0 {
						t.Errorf("c%d leads", j)
					}
				}
				t.Fatalf("L5: c%d does not lead at once; releases say that there wait: %q", i, drain(said))
			}
			time.Sleep(short/10 + instant) // the others' own next message would come half a lease after their first
		}
		want := []string{"c0 c1 c2", "c1 c2 c3", "c2 c3 c4", "c3 c4 c5", "c4 c5", "c5"}
		if queues := drain(said); !slices.Equal(queues, want) {
			t.Errorf("releases say that there wait: %q, want %q", queues, want)
		}
	})
}

func drain(c chan string) (l []string) {
	for len(c) > 0 {
		l = append(l, <-c)
	}
	return l
}
