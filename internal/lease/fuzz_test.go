package lease

import (
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/dice"
	"github.com/quorate/quorate/internal/wire"
)

// FuzzMachine: whatever stands under the key, a candidate or holder does not panic, is not woken without end, has one write under way (E9), holds no term of which
// no write was confirmed or read, and none for longer than its lease (E1).
func FuzzMachine(f *testing.F) {
	for i := range 4 {
		data := make([]byte, 300)
		for j := range data {
			data[j] = byte(j*(3+i*8) + j*j*i)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dice.New(data)
		now := clock.Instant{Mono: time.Hour, Boot: 2 * time.Hour, Wall: 3 * time.Hour}
		const lease = 3 * time.Second
		m := New(Config{ID: "a", Prefix: "p", Lease: lease, Margin: lease / 10, Grace: lease, Delay: dice.Pick[time.Duration](d, 0, time.Second), Quorum: d.N(4) == 1, Jitter: float64(d.N(100)) / 100})
		rev := uint64(100)
		var writes, stale []Write
		reads := 0
		shown := map[string]bool{} // nonces of own writes that the bucket has confirmed or shown
		var nonces []string
		inTerm := false
		step := func(in Input) {
			if k, ok := in.(Kill); ok && k.Cause == BucketLost {
				stale, writes = append(stale, writes...), nil // into a bucket that is gone: they are not waited for
			}
			for _, fx := range m.Step(now, in) {
				switch fx := fx.(type) {
				case Read:
					reads++
				case Write:
					writes = append(writes, fx)
					nonces = append(nonces, fx.Nonce)
					if len(writes) > 1 {
						t.Fatalf("E9: %d writes are under way", len(writes))
					}
				case Begin:
					if len(shown) == 0 || inTerm || fx.Deadline.Mono > now.Mono+lease {
						t.Fatalf("E1: begins until %v at %v, %d writes are known to have landed, in a term: %v", fx.Deadline.Mono, now.Mono, len(shown), inTerm)
					}
					inTerm = true
				case Extend:
					if fx.Deadline.Mono > now.Mono+lease {
						t.Fatalf("E1: extended until %v at %v", fx.Deadline.Mono, now.Mono)
					}
				case Ended:
					inTerm = false
				}
			}
		}
		entry := func() Entry {
			e := Entry{Kind: dice.Pick(d, Held, Vacant, Release, Removed, Gone), Rev: dice.Pick(d, rev, rev+1, d.Unsigned())}
			switch e.Kind {
			case Held:
				rev++
				e.Rev = dice.Pick(d, rev, rev, e.Rev)
				if d.N(6) == 1 {
					break // does not decode
				}
				e.Rec = &wire.Leader{V: 1, ID: d.Name(), Nonce: d.Text(), Token: d.Unsigned(), Params: wire.Params{LeaseMS: dice.Pick[int64](d, 3000, d.Number())}, Next: []string{d.Name()}}
				if e.Rec.Params.LeaseMS <= 0 || e.Rec.Lease() > wire.MaxLease { // as the shell demands
					e.Rec.Params.LeaseMS = 1
				}
				if len(nonces) > 0 && d.N(3) == 1 {
					e.Rec.ID, e.Rec.Nonce = "a", nonces[d.N(len(nonces))]
					shown[e.Rec.Nonce] = true
				}
			case Vacant, Gone:
				e.Rev = 0
			case Release:
				e.Replaced, e.Nonce, e.Next = d.Unsigned(), d.Text(), dice.Pick(d, "", "a", d.Name())
				if d.Coin() {
					e.Queue = []string{d.Name()}
				}
			}
			return e
		}
		for n := 0; d.More() && n < 300; n++ {
			switch d.N(9) {
			case 0, 1:
				if reads > 0 {
					reads--
					step(ReadDone{OK: d.N(6) != 1, Entry: entry()})
				}
			case 2, 3:
				if len(writes) > 0 {
					w := writes[0]
					writes = nil
					out := dice.Pick(d, Yes, Unknown, No)
					rev++
					if out == Yes {
						shown[w.Nonce] = true
					}
					step(WriteDone{Nonce: w.Nonce, Outcome: out, Rev: rev})
				}
			case 4:
				if len(stale) > 0 && d.Coin() {
					step(WriteDone{Nonce: stale[0].Nonce, Outcome: Unknown})
					stale = stale[1:]
				}
				step(Seen{entry()})
			case 5:
				step(Campaign{Try: d.N(4) == 1})
			case 6:
				step(dice.Pick[Input](d, Tick{}, Reconnected{}, Returned{}, Withdraw{}))
			case 7:
				step(dice.Pick[Input](d, Stop{Cause: Resigned}, Stop{Cause: StepDown, To: d.Name()}, Flip{d.Coin()}, Kill{BucketLost}))
				if d.Coin() {
					step(Returned{})
				}
			case 8:
				end := now.Mono + min(d.Time(), 10*time.Minute)
				for k := 0; ; k++ {
					at, ok := m.Next()
					if !ok || at > end {
						break
					}
					if k > 100_000 {
						t.Fatal("it is woken without end")
					}
					now = now.Add(max(at-now.Mono, lease/1000))
					step(Tick{})
				}
				if now.Mono < end {
					now = now.Add(end - now.Mono)
				}
			}
		}
	})
}
