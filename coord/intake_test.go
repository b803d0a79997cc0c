package coord

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/ballot"
	"github.com/quorate/quorate/internal/wire"
)

func beat(id string, inc, seq uint64) *nats.Msg {
	return &nats.Msg{Reply: "inbox", Data: wire.Encode(&wire.Heartbeat{V: wire.Version, ID: id, Incarnation: inc, Seq: seq})}
}

// beats counts the heartbeats of a batch, by member, and notes the last number of each.
func beats(t *testing.T, batch []any) (n int, last map[string]uint64) {
	t.Helper()
	last = map[string]uint64{}
	for _, in := range batch {
		if b, ok := in.(*beatInput); ok {
			if b.raw && !b.decode() {
				t.Errorf("a heartbeat that was taken does not decode: %s", b.m.Data)
			}
			n++
			last[b.hb.ID] = b.hb.Seq
		}
	}
	return n, last
}

// A member that floods with heartbeats has one wait, the newest; the others' are taken.
func TestIntakeHeartbeats(t *testing.T) {
	q := newIntake()
	for i := range uint64(300_000) {
		q.Beat(beat("flood", 1, i+1))
		if i%100_000 == 50_000 {
			q.Beat(beat(fmt.Sprint("m", i), 1, 7))
		}
	}
	q.Beat(beat("flood", 2, 1)) // another process of that id: S7 is to see it
	n, last := beats(t, q.Take())
	if n != 5 || last["m50000"] != 7 || last["m250000"] != 7 {
		t.Errorf("%d heartbeats wait, %v", n, last)
	}
	q.Beat(beat("flood", 1, 300_001))
	q.Beat(beat("flood", 1, 300_002))
	if n, last := beats(t, q.Take()); n != 1 || last["flood"] != 300_002 {
		t.Errorf("%d heartbeats wait, %v, want the newest", n, last)
	}
	// Other spellings are read too, and count as the same.
	q.Beat(&nats.Msg{Reply: "r", Data: []byte(`{ "seq": 1, "inc": 1, "id": "a", "v": 1 }`)})
	q.Beat(&nats.Msg{Reply: "r", Data: []byte(`{ "seq": 2, "inc": 1, "id": "a", "v": 1 }`)})
	q.Beat(beat("a", 1, 3))
	if n, last := beats(t, q.Take()); n != 1 || last["a"] != 3 {
		t.Errorf("%d heartbeats wait, %v, want the newest", n, last)
	}
	for _, data := range []string{"", "{", `{"v":2,"id":"a","inc":1,"seq":1}`, `{"v":1,"id":"a.b","inc":1,"seq":1}`, `{"v":1,"id":"a","inc":0,"seq":1}`, `{"v":1,"id":"a","inc":9007199254740992,"seq":1}`,
		`{"v":1,"id":"a","inc":-1,"seq":1}`, `{"v":1,"id":"a","inc":1`} {
		q.Beat(&nats.Msg{Reply: "r", Data: []byte(data)})
	}
	q.Beat(&nats.Msg{Data: beat("a", 1, 1).Data}) // nobody to answer
	if n, _ := beats(t, q.Take()); n != 0 {
		t.Errorf("%d that are none are taken", n)
	}
}

// Who invents members fills the room of strangers, and not that of members.
func TestIntakeStrangers(t *testing.T) {
	q := newIntake()
	q.Know(map[wire.Place]bool{{ID: "a", Incarnation: 1}: true, {ID: "b", Incarnation: 2}: true})
	for i := range uint64(3 * maxStrangers) {
		q.Beat(beat(fmt.Sprint("x", i), 1, 1))
		q.Beat(beat("a", i+2, 1)) // nor those of another incarnation
	}
	q.Beat(beat("a", 1, 5))
	q.Beat(beat("b", 2, 5))
	n, last := beats(t, q.Take())
	if n != maxStrangers+2 || last["b"] != 5 {
		t.Errorf("%d heartbeats wait, b's %d, want %d", n, last["b"], maxStrangers+2)
	}
}

// Requests and votes are bounded, taken in parts, and stand before no heartbeat.
func TestIntakeRequests(t *testing.T) {
	q := newIntake()
	for i := range maxRequests + 10 {
		q.Request(i)
	}
	for range maxVotes + 10 {
		q.Vote(ballot.VoteIn{})
	}
	q.Put("own")
	q.Beat(beat("a", 1, 1))
	rounds, asked, voted := 0, 0, 0
	for {
		select {
		case <-q.C():
		default:
			if rounds == 0 || asked != maxRequests || voted != maxVotes {
				t.Errorf("%d requests, %d votes in %d rounds", asked, voted, rounds)
			}
			return
		}
		batch := q.Take()
		if n, _ := beats(t, batch); n != 1 || len(batch) > votesAtOnce+requestsAtOnce+2 {
			t.Fatalf("round %d: %d inputs, %d heartbeats", rounds, len(batch), n)
		}
		if rounds == 0 && batch[0] != "own" {
			t.Error("its own does not come first")
		}
		for _, in := range batch {
			switch in := in.(type) {
			case int:
				if in != asked {
					t.Fatalf("request %d after %d", in, asked)
				}
				asked++
			case ballot.VoteIn:
				voted++
			}
		}
		if q.Beat(beat("a", 1, 2)); len(q.votes)+len(q.requests) == 0 {
			q.Take()
			<-q.C()
		}
		rounds++
	}
}

// FuzzIntake: whatever comes as a heartbeat, what is taken for one is one, and the first look at it finds the same member as the whole.
func FuzzIntake(f *testing.F) {
	f.Add(beat("a", 1, 1).Data)
	f.Add([]byte(`{"v":1,"id":"a","inc":1,"seq":1,"id":"b","inc":2}`))
	f.Add([]byte(`{"v":1,"id":"a\u0062","inc":1,"seq":1}`))
	f.Add([]byte(`{"v":1,"id":"a","inc":1e3,"seq":1}`))
	f.Add([]byte(`{"v":1,"id":"","inc":,`))
	f.Fuzz(func(t *testing.T, data []byte) {
		q := newIntake()
		q.Beat(&nats.Msg{Reply: "r", Data: data})
		n, last := beats(t, q.Take())
		if n == 0 {
			return
		}
		var hb wire.Heartbeat
		if err := wire.Decode(data, &hb); err != nil || wire.CheckID(hb.ID) != nil || hb.Incarnation == 0 {
			t.Errorf("%q is taken for a heartbeat: %v", data, err)
		}
		if _, ok := last[hb.ID]; !ok {
			t.Errorf("%q is taken for one of %v", data, last)
		}
	})
}
