package leader

import (
	"testing"
	"time"

	"github.com/quorate/quorate/testenv"
)

// L5: a campaign that is given up in the moment in which it was won ends that term, and no later one: who gave it up may have stood still until
// that term had run out, and another caller of the elector had won the next.
func TestWithdrawnLate(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		el, err := New(e.Namespace(), "job", Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		first, err := el.Campaign(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		second, err := el.Campaign(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		late := &campaignInput{won: make(chan *Term, 1), lost: make(chan error, 1)}
		late.won <- first
		gone := make(chan struct{})
		el.box.Put(withdrawInput{late, gone})
		<-gone
		time.Sleep(time.Second)
		if !second.Live() || second.Work().Err() != nil {
			t.Error("L5: the term after it was ended")
		}
		if len(late.won) != 1 {
			t.Error("who has given up does not find out that it had won")
		}
	})
}
