package settle

import (
	"fmt"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/dice"
	"github.com/quorate/quorate/internal/wire"
)

// FuzzMachine: whatever heartbeats, records and answers come, a leader's machine does not panic, is woken only so often, writes a record in which each id has one
// place (P1), grants nobody a place that the record does not have, or one that it has while it settles (P2), and waits for nothing longer than a member may
// be granted.
func FuzzMachine(f *testing.F) {
	for i := range 4 {
		data := make([]byte, 300)
		for j := range data {
			data[j] = byte(j*(5+i*8) + j*j*i)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dice.New(data)
		now := clock.Instant{Mono: time.Hour, Boot: 2 * time.Hour, Wall: 1_700_000_000 * time.Second}
		const lease = 3 * time.Second
		m := New(Config{Token: 1000, Self: wire.Place{ID: "a", Incarnation: 1}, Prefix: "p", Lease: lease, Timeout: 2 * lease, Settle: lease / 2, Ceiling: 2 * lease, AckTimeout: lease, Buckets: dice.Pick(d, 0, 4),
			Fresh: d.Coin(), MinSize: d.N(3), Keeps: d.N(4) == 1}, now)
		rev := uint64(2000)
		var todo []Effect
		place := func() wire.Place {
			return wire.Place{ID: d.Name(), Incarnation: dice.Pick[uint64](d, 1, 2, 3, d.Unsigned())}
		}
		record := func() *wire.Settled {
			r := &wire.Settled{V: 1, Phase: dice.Pick(d, wire.SettledDone, wire.Settling), Generation: dice.Pick[uint64](d, 900, d.Unsigned()), Previous: d.Unsigned(), Map: d.Text(), Lost: d.Coin(),
				MemberTimeoutMS: dice.Pick[int64](d, 6000, d.Number()), Token: dice.Pick[uint64](d, 900, d.Unsigned()), Nonce: dice.Pick(d, "p.s1", "p.s2", d.Text()), Buckets: dice.Pick(d, 0, 0, 4, int(d.Number()))}
			for range d.N(4) {
				r.Places = append(r.Places, place())
			}
			for range dice.Pick(d, 0, min(max(r.Buckets, 0), 8), d.N(8)) {
				r.Owners, r.Tokens = append(r.Owners, dice.Pick(d, -1, 0, 1, int(d.Number()))), append(r.Tokens, d.Unsigned())
				if d.N(3) == 1 {
					r.Moving = append(r.Moving, dice.Pick(d, 0, 1, int(d.Number())))
				}
			}
			return r
		}
		step := func(in Input) {
			for _, fx := range m.Step(now, in) {
				switch fx := fx.(type) {
				case ReadSettled, ReadMembers:
					todo = append(todo, fx)
				case WriteSettled:
					todo = append(todo, fx)
					if m.ready {
						seen := map[string]bool{}
						for _, p := range fx.Rec.Places {
							if seen[p.ID] && fx.Rec.Phase == wire.SettledDone && fx.Rec.Generation > 1000 {
								t.Fatalf("P1: %q has two places: %+v", p.ID, fx.Rec.Places)
							}
							seen[p.ID] = true
						}
					}
				case Reply:
					r := fx.Reply
					if r.Gen != 0 && (r.Gen != m.rec.Generation || m.rec.Phase != wire.SettledDone && r.Settling == 0 || r.Index < 0 || r.Index >= r.Total) {
						t.Fatalf("P1, P2: grants %+v by %+v", r, m.rec)
					}
					if r.GrantMS < 0 || r.GrantMS > 6000 {
						t.Fatalf("grants %d ms", r.GrantMS)
					}
				}
			}
		}
		pass := func(dt time.Duration) {
			end := now.Mono + dt
			for k := 0; m.Next() <= end; k++ {
				if k > 200_000 {
					t.Fatal("it is woken without end")
				}
				now = now.Add(max(m.Next()-now.Mono, lease/1000)) // a shell is not quicker
				step(Tick{})
			}
			if now.Mono < end {
				now = now.Add(end - now.Mono)
			}
		}
		key := func() Key {
			k := Key{Place: place(), Rev: dice.Pick(d, rev, d.Unsigned()), Reason: dice.Pick(d, wire.ReasonLeft, wire.ReasonEvicted, wire.ReasonExpired, "MaxAge", d.Text()), Nonce: d.Text(), ByToken: d.Unsigned()}
			if d.Coin() && k.Place.Incarnation != 0 && k.Place.Incarnation < wire.MaxToken { // as the shell demands
				k.Record = &wire.Member{V: 1, ID: k.Place.ID, Incarnation: k.Place.Incarnation, Joined: d.Text(), Roles: []string{dice.Pick(d, wire.RoleWork, wire.RoleLead, d.Text())}, Nonce: d.Text(),
					Left: d.Unsigned(), ReturnMS: d.Number(), Weight: int(d.Number()), Zone: d.Text()}
			}
			return k
		}
		answer := func() {
			fx := todo[0]
			todo = todo[1:]
			rev++
			switch fx := fx.(type) {
			case ReadSettled:
				in := Adopt{OK: d.N(6) != 1, Rev: dice.Pick(d, rev, m.rev, d.Unsigned()), Lost: d.Coin(), Foreign: d.N(6) == 1}
				if d.Coin() {
					in.Rec = record()
					in.Foreign = in.Foreign || in.Rec.Check() != nil // as the shell demands
				}
				step(in)
			case ReadMembers:
				in := Members{OK: d.N(6) != 1}
				for range d.N(4) {
					in.Keys = append(in.Keys, key())
				}
				step(in)
			case WriteSettled:
				step(Wrote{Nonce: fx.Rec.Nonce, Outcome: dice.Pick(d, Yes, Unknown, No), Rev: rev})
			}
		}
		step(Tick{})
		for range 6 { // mostly it serves at once
			if len(todo) > 0 && d.N(4) != 3 {
				answer()
			}
		}
		for n := 0; d.More() && n < 300; n++ {
			switch d.N(8) {
			case 0, 1, 2:
				id := d.Name()
				if wire.CheckID(id) != nil { // as the shell demands
					id = "a"
				}
				inc := dice.Pick[uint64](d, 1, 2, d.Unsigned())
				if inc == 0 || inc >= wire.MaxToken {
					inc = wire.MaxToken - 1
				}
				step(Beat{Handle: n, HB: wire.Heartbeat{V: 1, ID: id, Incarnation: inc, Seq: dice.Pick(d, uint64(n), d.Unsigned()), Ack: dice.Pick(d, m.rec.Generation, d.Unsigned()), Hold: d.Unsigned(),
					Roles: []string{dice.Pick(d, wire.RoleWork, wire.RoleLead, d.Text())}, Joined: d.Text(), Late: d.Coin(), Leave: d.N(6) == 1,
					Part: d.Unsigned(), Weight: int(d.Number()), Zone: d.Text()}})
			case 3, 4:
				if len(todo) > 0 {
					answer()
				}
			case 5:
				step(key())
			case 6:
				step(dice.Pick[Input](d, Tick{}, Reconnected{}, Evict{place()}, Tune{Settle: lease, Ceiling: 2 * lease, AckTimeout: lease, Buckets: dice.Pick(d, 0, 4, 7), Map: dice.Pick(d, wire.MapJump, wire.MapXXH64, wire.MapFNV1a)}))
			case 7:
				pass(min(d.Time(), 10*time.Minute))
			}
			_ = m.Roster()
			_ = m.Electorate()
			if len(todo) > 8 {
				t.Fatalf("%d exchanges with the bucket at once: %s", len(todo), fmt.Sprint(todo))
			}
		}
		if m.wait > wire.MaxMemberTimeout {
			t.Fatalf("waits for %v", m.wait)
		}
	})
}
