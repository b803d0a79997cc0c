package seat

import (
	"testing"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/dice"
	"github.com/quorate/quorate/internal/wire"
)

// FuzzMachine: whatever a leader answers, and whoever says that it is one, a member does not panic, sends heartbeats no faster than the shortest lease
// asks for, holds nothing past the longest grant, and never a generation below one that it has acknowledged or held (H4).
func FuzzMachine(f *testing.F) {
	for i := range 4 {
		data := make([]byte, 200)
		for j := range data {
			data[j] = byte(j*(11+i*8) + j*j*i)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dice.New(data)
		now := clock.Instant{Mono: time.Hour, Boot: 2 * time.Hour, Wall: 3 * time.Hour}
		m := New(Config{Place: wire.Place{ID: "a", Incarnation: 7}, Lease: 3 * time.Second, AckTimeout: 3 * time.Second, Unrecorded: d.Coin()})
		var floor, seq uint64
		sent, asked := 0, 1 // heartbeats, and those that something has asked for
		step := func(in Input) {
			for _, fx := range m.Step(now, in) {
				switch fx := fx.(type) {
				case Send:
					sent++
					if fx.HB.Seq != seq+1 || fx.HB.Ack < floor {
						t.Fatalf("heartbeat %d after %d, acknowledges %d after %d", fx.HB.Seq, seq, fx.HB.Ack, floor)
					}
					seq, floor = fx.HB.Seq, fx.HB.Ack
				case Granted:
					if fx.Gen < floor {
						t.Fatalf("H4: holds %d, acknowledged %d", fx.Gen, floor)
					}
					floor = fx.Gen
					if fx.Deadline.Mono > now.Mono+wire.MaxMemberTimeout {
						t.Fatalf("holds until %v, it is %v", fx.Deadline.Mono, now.Mono)
					}
				case Extended:
					if fx.Deadline.Mono > now.Mono+wire.MaxMemberTimeout {
						t.Fatalf("holds until %v, it is %v", fx.Deadline.Mono, now.Mono)
					}
				case Gained:
					if fx.Gen < floor || fx.Deadline.Mono > now.Mono+wire.MaxMemberTimeout {
						t.Fatalf("H4: gains buckets of %d until %v, acknowledged %d, it is %v", fx.Gen, fx.Deadline.Mono, floor, now.Mono)
					}
				}
			}
		}
		for n := 0; d.More() && n < 300; n++ {
			switch d.N(8) {
			case 0, 1, 2:
				r := wire.Reply{V: 1, Seq: seq - uint64(d.N(3)), Token: dice.Pick[uint64](d, 5, 6, d.Unsigned()), GrantMS: dice.Pick[int64](d, 6000, d.Number()), Gen: dice.Pick[uint64](d, 0, 9, 10, d.Unsigned()),
					Index: int(d.Number()), Total: int(d.Number()), Settling: dice.Pick[uint64](d, 0, 10, 11, d.Unsigned()), Gone: dice.Pick(d, "", "", "", "", wire.GoneEvicted, d.Text()), Newest: d.Unsigned(),
					Wait: d.N(8) == 1, Rewrite: d.Coin(), LeaseMS: dice.Pick[int64](d, 3000, d.Number()), AckMS: d.Number(), Map: d.Text(),
					Part: d.N(4) == 1, Of: dice.Pick(d, 0, 4, int(d.Number()))}
				for range d.N(4) {
					r.Buckets, r.Tokens, r.Keep = append(r.Buckets, dice.Pick(d, 0, 1, 2, int(d.Number()))), append(r.Tokens, dice.Pick[uint64](d, 9, 10, d.Unsigned())), append(r.Keep, dice.Pick(d, 1, int(d.Number())))
				}
				if r.Count = len(r.Buckets); d.N(8) == 1 {
					r.Count = int(d.Number())
				}
				if d.N(8) == 1 {
					q := d.Coin()
					r.Quorate = &q
				}
				step(Reply{r})
				asked++
			case 3:
				step(Poke{})
				asked++
			case 4:
				step(LetGo{For: dice.Pick[uint64](d, 0, 10, 11, d.Unsigned())})
				asked++
			case 5:
				step(dice.Pick[Input](d, Recorded{}, Roles{[]string{wire.RoleWork}}, Takes{int(d.Number()), d.Text()}, Tick{}, Kill{}))
				asked++
			case 6:
				if d.N(6) == 1 {
					step(dice.Pick[Input](d, Leave{}, Departed{}))
					asked++
				}
			case 7:
				dt := min(d.Time(), 10*time.Minute)
				before, end := sent, now.Mono+dt
				for k := 0; !m.over && m.Next() <= end; k++ {
					if k > 100_000 {
						t.Fatal("it is woken without end")
					}
					by := max(m.Next()-now.Mono, 0)
					now = now.Add(by)
					step(Tick{})
				}
				now = now.Add(end - now.Mono)
				if most := int(dt/(wire.MinLease/6)) + 2 + asked; sent-before > most {
					t.Fatalf("%d heartbeats within %v", sent-before, dt)
				}
				asked = 0
			}
		}
	})
}
