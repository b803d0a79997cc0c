package proof_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// What is below was written from docs/protocol.md, as somebody would in another language: it has NATS and JSON, and nothing of quorate.

type fields = map[string]any

// foreign is a connection of such a client.
type foreign struct {
	t  *testing.T
	nc *nats.Conn
}

// write is a write of "Writes": its revision, or false if it was refused.
func (f *foreign) write(key string, expected uint64, ttl time.Duration, value fields, more ...string) (uint64, bool) {
	f.t.Helper()
	m := nats.NewMsg("$KV.QUORATE_foreign." + key)
	m.Header.Set("Nats-Expected-Last-Subject-Sequence", strconv.FormatUint(expected, 10))
	m.Header.Set("Nats-Expected-Stream", "KV_QUORATE_foreign")
	m.Header.Set("Nats-TTL", fmt.Sprintf("%ds", int(ttl.Seconds())))
	for i := 0; i < len(more); i += 2 {
		m.Header.Set(more[i], more[i+1])
	}
	if value != nil {
		m.Data, _ = json.Marshal(value)
	}
	answer, err := f.nc.RequestMsg(m, time.Second)
	if err != nil {
		f.t.Errorf("write of %s: %v", key, err)
		return 0, false
	}
	var ack struct {
		Stream string
		Seq    uint64
		Error  *struct {
			Code int `json:"err_code"`
		}
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil || ack.Error != nil && ack.Error.Code != 10071 {
		f.t.Errorf("write of %s: %s", key, answer.Data)
	}
	return ack.Seq, ack.Error == nil
}

// purge is a removal.
func (f *foreign) purge(key string, expected uint64, reason, nonce string, more ...string) bool {
	f.t.Helper()
	_, ok := f.write(key, expected, time.Hour, nil, append([]string{"KV-Operation", "PURGE", "Nats-Rollup", "sub", "Quorate-Reason", reason, "Quorate-Nonce", nonce}, more...)...)
	return ok
}

// read is a read of "Reads": the revision of what stands there, 0 for nothing; the record, or nil for a marker.
func (f *foreign) read(key string) (uint64, fields) {
	f.t.Helper()
	answer, err := f.nc.Request("$JS.API.STREAM.MSG.GET.KV_QUORATE_foreign", []byte(`{"last_by_subj":"$KV.QUORATE_foreign.`+key+`"}`), time.Second)
	if err != nil {
		f.t.Errorf("read of %s: %v", key, err)
		return 0, nil
	}
	var got struct {
		Message struct {
			Seq        uint64
			Hdrs, Data string
		}
		Error *struct {
			Code int `json:"err_code"`
		}
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil || got.Error != nil && got.Error.Code != 10037 {
		f.t.Errorf("read of %s: %s", key, answer.Data)
	}
	data, _ := base64.StdEncoding.DecodeString(got.Message.Data)
	var record fields
	if len(data) > 0 {
		if err := json.Unmarshal(data, &record); err != nil {
			f.t.Errorf("read of %s: %v", key, err)
		}
	}
	return got.Message.Seq, record
}

// TestForeignCandidate: a plain election, with a candidate written from the protocol alone: it takes what a holder of ours releases, keeps it for as long as it
// renews, and what it releases ours takes at once, by a higher token (L1, L2, L5).
func TestForeignCandidate(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ctx := t.Context()
		ns := e.Namespace(quorate.Config{Namespace: "foreign"})
		nc, _ := e.Connect("foreign")
		f := &foreign{t, nc}
		first, err := leader.New(ns, "jobs", leader.Config{ID: "ours"})
		if err != nil {
			t.Error(err)
			return
		}
		term, err := first.Campaign(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		token := term.Token()
		if rev, rec := f.read("election.jobs"); rec["id"] != "ours" || rec["token"].(float64) != 0 || rev != token {
			t.Errorf("the record at %d is %v, want ours with token 0: it is the acquiring write, %d", rev, rec, token)
		}
		if err := term.Resign(ctx); err != nil {
			t.Error(err)
		}

		// E3: the marker is a release, so the key is free. The write expects the marker's revision.
		rev, rec := f.read("election.jobs")
		if rec != nil {
			t.Errorf("after the release %v stands there", rec)
		}
		record := func(n int, token uint64) fields {
			return fields{"v": 1, "id": "foreign", "nonce": fmt.Sprintf("x.%d", n), "token": token, "params": fields{"lease_ms": 3000}, "since": time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z")}
		}
		mine, ok := f.write("election.jobs", rev, 15*time.Second, record(0, 0))
		if !ok || mine <= token {
			t.Errorf("acquired: %v by %d, want a token above %d", ok, mine, token)
			return
		}

		// The queue: who waits says so, and a release names it.
		queue, err := nc.SubscribeSync("quorate.foreign.e.jobs.queue")
		if err != nil {
			t.Error(err)
			return
		}
		won := make(chan *leader.Term, 1)
		go func() {
			if term, err := first.Campaign(ctx); err == nil {
				won <- term
			}
		}()
		rev = mine
		for n := 1; n <= 60; n++ { // ten leases, renewed every sixth of one
			time.Sleep(500 * time.Millisecond)
			if rev, ok = f.write("election.jobs", rev, 15*time.Second, record(n, mine)); !ok {
				t.Errorf("renewal %d was refused", n)
				return
			}
		}
		if st, err := first.Leader(ctx); err != nil || st.Holder != "foreign" || st.Token != mine {
			t.Errorf("ours sees %+v, %v, want foreign with token %d", st, err, mine)
		}
		if len(won) > 0 {
			t.Error("L1: ours leads while the foreign one holds the key")
		}
		waits := fields{}
		if m, err := queue.NextMsg(time.Second); err != nil || json.Unmarshal(m.Data, &waits) != nil || waits["id"] != "ours" {
			t.Errorf("in the queue is %v, %v, want ours", waits, err)
		}
		released := time.Now()
		if !f.purge("election.jobs", rev, "resigned", "x.60", "Quorate-Queue", fmt.Sprint(waits["id"])) {
			t.Error("the release was refused")
		}
		next := <-won
		if d := time.Since(released); d > 100*time.Millisecond || next.Token() <= mine {
			t.Errorf("ours leads %v after the release, by token %d; want at once, and above %d", d, next.Token(), mine)
		}
		if err := next.Resign(ctx); err != nil {
			t.Error(err)
		}
	})
}

// foreignMember works and votes.
type foreignMember struct {
	foreign
	id        string
	inc       uint64
	rev       uint64 // of its record
	mu        sync.Mutex
	seq       uint64
	ack, hold uint64
	index     float64
	total     float64
	token     float64
	sent      map[uint64]time.Time
	deadline  time.Time
	leaving   bool
	inbox     string
}

const foreignGroup = "quorate.foreign.g.group."

func (f *foreignMember) beat(leaving bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	f.sent[f.seq] = time.Now()
	hb := fields{"v": 1, "id": f.id, "inc": f.inc, "seq": f.seq, "ack": f.ack, "roles": []string{"work", "vote"}}
	if f.hold != 0 {
		hb["hold"] = f.hold
	}
	if leaving {
		hb["leave"] = true
	}
	data, _ := json.Marshal(hb)
	if err := f.nc.PublishRequest(foreignGroup+"heartbeat", f.inbox, data); err != nil {
		f.t.Error(err)
	}
}

// reply obeys H1 to H5. Its work is nothing, and so let go of at once.
func (f *foreignMember) reply(m *nats.Msg) {
	var r fields
	if len(m.Data) == 0 || json.Unmarshal(m.Data, &r) != nil {
		return // nobody leads
	}
	num := func(name string) float64 { n, _ := r[name].(float64); return n }
	f.mu.Lock()
	again := false
	if num("token") >= f.token && num("grant_ms") > 0 && !f.leaving { // H3
		f.token = num("token")
		if s := uint64(num("settling")); s > f.ack { // H5
			f.hold, f.ack, again = 0, s, true
		} else if gen := uint64(num("gen")); gen != 0 && gen >= f.ack { // H4
			grant := time.Duration(num("grant_ms")) * time.Millisecond
			f.ack, f.hold, f.index, f.total = gen, gen, num("index"), num("total")
			f.deadline = f.sent[uint64(num("seq"))].Add(grant - grant/10) // H1, H2
		}
	}
	f.mu.Unlock()
	if again {
		f.beat(false)
	}
}

func (f *foreignMember) share() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hold == 0 || !time.Now().Before(f.deadline) {
		return "none"
	}
	return fmt.Sprintf("%v of %v", f.index, f.total)
}

// TestForeignMember: a group with a member written from the protocol alone: it gets a share beside ours, keeps it while it sends heartbeats, votes, answers,
// and is told of as one that has left when it leaves (M1, P1, V2).
func TestForeignMember(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ctx := t.Context()
		var ours []*coord.Group
		var shares []*partition.Partition
		for _, id := range []string{"a", "b"} {
			g, err := coord.Join(ctx, e.Namespace(quorate.Config{Namespace: "foreign"}), "group", coord.Config{ID: id})
			if err != nil {
				t.Error(err)
				return
			}
			p, err := partition.Join(ctx, g, partition.Config{})
			if err != nil {
				t.Error(err)
				return
			}
			go p.Run(ctx, func(ctx context.Context, _ *partition.Assignment) error { <-ctx.Done(); return nil })
			if _, err := vote.Join(ctx, g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() }}); err != nil {
				t.Error(err)
			}
			ours, shares = append(ours, g), append(shares, p)
		}
		nc, _ := e.Connect("foreign")
		f := &foreignMember{foreign: foreign{t, nc}, id: "f", inc: uint64(time.Now().UnixMicro()), sent: map[uint64]time.Time{}}
		f.inbox = nats.NewInbox() + "." + strconv.FormatUint(f.inc, 10)
		subscribe := func(subject string, fn nats.MsgHandler) {
			if _, err := nc.Subscribe(subject, fn); err != nil {
				t.Error(err)
			}
		}
		subscribe(f.inbox, f.reply)
		subscribe(foreignGroup+"poke", func(*nats.Msg) { f.beat(false) })
		subscribe(foreignGroup+"ballot", func(m *nats.Msg) {
			var b fields
			if json.Unmarshal(m.Data, &b) == nil {
				data, _ := json.Marshal(fields{"v": 1, "ballot": b["ballot"], "round": b["round"], "id": f.id, "inc": f.inc, "answer": "no", "reason": "foreign"})
				_ = m.Respond(data)
			}
		})
		subscribe(foreignGroup+"member.f.hello", func(m *nats.Msg) {
			answer := nats.NewMsg(m.Reply)
			answer.Header.Set("Quorate-From", f.id)
			answer.Data = append([]byte("you are "), m.Header.Get("Quorate-From")...)
			_ = m.RespondMsg(answer)
		})
		var ok bool
		if rev, _ := f.read("member.group.f"); rev != 0 {
			t.Errorf("revision %d stands under its key already", rev)
		}
		if f.rev, ok = f.write("member.group.f", 0, 24*time.Hour, fields{"v": 1, "id": "f", "incarnation": f.inc, "joined": time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z"),
			"roles": []string{"work", "vote"}, "meta": fields{"written": "from the protocol"}, "nonce": "f-1"}); !ok {
			t.Error("its record was refused")
		}
		beating, stop := context.WithCancel(ctx)
		var beats sync.WaitGroup
		beats.Go(func() {
			for beating.Err() == nil {
				f.beat(false)
				select {
				case <-beating.Done():
				case <-time.After(500 * time.Millisecond):
				}
			}
		})
		time.Sleep(10 * time.Second)

		all := func() map[string]bool {
			l := map[string]bool{f.share(): true}
			for _, p := range shares {
				if a, ok := p.Assignment(); ok && a.Live() {
					l[fmt.Sprintf("%d of %d", a.Index, a.Total)] = true
				}
			}
			return l
		}
		if l := all(); len(l) != 3 || !l["0 of 3"] || !l["1 of 3"] || !l["2 of 3"] {
			t.Errorf("P1: shares %v, want three of three", l)
		}
		members, err := ours[0].Members(ctx)
		if err != nil || len(members) != 3 || members[2].ID != "f" || members[2].Status != coord.Alive || members[2].Meta["written"] == "" {
			t.Errorf("members %+v, %v, want f alive among them", members, err)
		}
		v, err := vote.Propose(ctx, ours[0].Client, vote.Proposal{Topic: "all?", Kind: vote.Consensus})
		if err != nil || v.Won() || v.Of != 3 || len(v.Reasons) != 1 || v.Reasons[0].Member != "f" {
			t.Errorf("verdict %+v, %v, want f's no", v, err)
		}
		if r, err := ours[1].Ask(ctx, coord.ToMember("f"), "hello", nil); err != nil || string(r.Data) != "you are b" {
			t.Errorf("f answers %q, %v", r.Data, err)
		}

		// One of ours leaves, the leader or not: f goes on.
		if err := ours[0].Leave(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		if l := all(); len(l) != 2 || !l["0 of 2"] || !l["1 of 2"] {
			t.Errorf("P1: shares %v, want two of two", l)
		}

		// It leaves: lets go, removes its record, says so.
		gone := make(chan string, 1)
		go func() {
			for view, err := range ours[1].Watch(ctx) {
				if err != nil {
					return
				}
				for _, d := range view.Left {
					if d.Member.ID == "f" {
						gone <- d.Reason
					}
				}
			}
		}()
		time.Sleep(time.Second)
		stop()
		beats.Wait()
		f.mu.Lock()
		f.hold, f.leaving = 0, true
		f.mu.Unlock()
		if !f.purge("member.group.f", f.rev, "left", "f-1", "Quorate-Incarnation", strconv.FormatUint(f.inc, 10)) {
			t.Error("the removal of its record was refused")
		}
		f.beat(true)
		if reason := <-gone; reason != "left" {
			t.Errorf("M1: f is gone as %q, want left", reason)
		}
		time.Sleep(5 * time.Second)
		if l := all(); len(l) != 2 || !l["none"] || !l["0 of 1"] {
			t.Errorf("shares %v, want one of one and none", l)
		}
	})
}
