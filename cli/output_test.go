package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

func TestAgo(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for d, want := range map[time.Duration]string{
		-time.Hour: "now", 0: "now", time.Second - 1: "now", time.Second: "1s ago", 3*time.Second + 1: "3s ago",
		time.Minute - 1: "59s ago", time.Minute: "1m ago", time.Hour: "1h ago", 47 * time.Hour: "47h ago", 48 * time.Hour: "2d ago",
	} {
		if got := ago(now, now.Add(-d)); got != want {
			t.Errorf("ago(%s) = %q, want %q", d, got, want)
		}
	}
	if got := agoText(now, "not a\ntime"); got != "not a time" {
		t.Errorf("agoText = %q", got)
	}
}

func TestTableLayout(t *testing.T) {
	tb := newTable("ID", "INDEX", "META")
	tb.right = []int{1}
	tb.shrink = 2
	tb.add("web-1", "0", strings.Repeat("k=v ", 30))
	tb.add("wéb", "12", "evil\x1b[2J\nline")
	tb.add("x")
	for _, width := range []int{0, 80, 40} {
		out := tb.render(width)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if len(lines) != 4 {
			t.Fatalf("%d lines, want 4:\n%s", len(lines), out)
		}
		for _, l := range lines {
			if n := len([]rune(l)); width > 0 && n > width {
				t.Errorf("%d columns, want %d at most: %s", n, width, l)
			}
		}
		if strings.ContainsRune(out, 0x1b) {
			t.Errorf("control characters in %q", out)
		}
	}
	if got := strings.Split(tb.render(0), "\n")[2]; !strings.HasPrefix(got, "wéb       12  evil") {
		t.Errorf("row %q", got)
	}
}

// The tables of the commands fit 80 columns, however long the names are.
func TestTablesFit(t *testing.T) {
	long := strings.Repeat("x", 63)
	number := "1795888177231580"
	for _, tb := range []*table{
		{heading: []string{"GROUP", "MEMBERS", "LEADER", "TOKEN", "PHASE", "GENERATION"}, right: []int{1, 3, 5}, shrink: 2,
			rows: [][]string{{long, "100", long, number, "not-quorate", number}}},
		{heading: []string{"ID", "STATUS", "INDEX", "ROLES", "JOINED", "SEEN", "HOST", "META"}, right: []int{2}, shrink: 7,
			rows: [][]string{{long, "unknown", "100", "LEADER,work,vote", "59m ago", "59m ago", long, long}}},
		{heading: []string{"MEMBER", "RTT", "ANSWER"}, right: []int{1}, shrink: 2, rows: [][]string{{long, "1.234567ms", long}}},
	} {
		for l := range strings.Lines(tb.render(80)) {
			if n := len([]rune(strings.TrimSuffix(l, "\n"))); n > 80 {
				t.Errorf("%d columns: %s", n, l)
			}
		}
	}
}

func TestColours(t *testing.T) {
	a := newApp(nil, nil, &bytes.Buffer{}, nil)
	if p := a.colours(a.stdout); p.on || p.good("x") != "x" {
		t.Error("coloured, but not a terminal")
	}
	if got := (palette{on: true}).bad("x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("bad = %q", got)
	}
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		line string
	}{
		{nil, 0, ""},
		{errors.New("a\nb\tc"), 1, "quorate: a b c\n"},
		{usageError("x"), 2, "quorate: x\n"},
		{silent(3), 3, ""},
		{failure(4, "leader: group %q: %w", "g", io.EOF), 4, "quorate: leader: group \"g\": EOF\n"},
		{fmt.Errorf("wrapped: %w", failure(4, "x")), 4, "quorate: wrapped: x\n"},
		{fmt.Errorf("ask: %w", context.DeadlineExceeded), 4, "quorate: ask: context deadline exceeded\n"},
		{wire.CheckGroup("a.b"), 2, "quorate: group \"a.b\": character 2 is '.'; letters, digits, '_' and '-' are allowed\n"},
		{outputError(fmt.Errorf("write: %w", syscall.EPIPE)), 1, ""},
	} {
		var b bytes.Buffer
		if code := report(&b, tt.err); code != tt.code || b.String() != tt.line {
			t.Errorf("report(%v) = %d, %q, want %d, %q", tt.err, code, b.String(), tt.code, tt.line)
		}
	}
	if !errors.Is(failure(4, "x: %w", io.EOF), io.EOF) {
		t.Error("failure does not wrap")
	}
}

// writes counts what it is given: each Write is one line.
type writes struct {
	lines []string
	fail  error
}

func (w *writes) Write(b []byte) (int, error) {
	if w.fail != nil {
		return 0, w.fail
	}
	w.lines = append(w.lines, string(b))
	return len(b), nil
}

func testWriter(json bool) (*eventWriter, *writes) {
	out := &writes{}
	at := time.Date(2025, 11, 23, 2, 31, 7, 123_000_000, time.UTC)
	return &eventWriter{group: "workers", self: "web-1", json: json, out: out, now: func() time.Time { return at }}, out
}

// everyEvent is one of each type, with all fields, and what it must look like (design section 7).
func everyEvent() []struct {
	e    event
	json string
	text string
} {
	late := int64(12)
	const top = `{"v":1,"time":"2025-11-23T02:31:07.123000000Z","type":`
	const gs = `"group":"workers","self":"web-1"`
	return []struct {
		e    event
		json string
		text string
	}{
		{&joinedEvent{Member: "web-1", Incarnation: 7}, top + `"joined",` + gs + `,"member":"web-1","incarnation":7}`,
			"02:31:07.123 joined         as web-1"},
		{&leftEvent{Member: "web-1", Reason: "left"}, top + `"left",` + gs + `,"member":"web-1","reason":"left"}`,
			"02:31:07.123 left           web-1: left"},
		{&disconnectedEvent{}, top + `"disconnected",` + gs + `}`, "02:31:07.123 disconnected"},
		{&reconnectedEvent{}, top + `"reconnected",` + gs + `}`, "02:31:07.123 reconnected"},
		{&memberJoinedEvent{Member: "b", Meta: map[string]string{"z": "<1>", "a": "2"}}, top + `"member-joined",` + gs + `,"member":"b","meta":{"a":"2","z":"<1>"}}`,
			"02:31:07.123 member-joined  b a=2 z=<1>"},
		{&memberJoinedEvent{Member: "b"}, top + `"member-joined",` + gs + `,"member":"b","meta":{}}`, "02:31:07.123 member-joined  b"},
		{&memberLeftEvent{Member: "b", Reason: "expired"}, top + `"member-left",` + gs + `,"member":"b","reason":"expired"}`,
			"02:31:07.123 member-left    b: expired"},
		{&leaderElectedEvent{Leader: "b", Token: 1763865067123456}, top + `"leader-elected",` + gs + `,"leader":"b","token":1763865067123456}`,
			"02:31:07.123 leader-elected b, token 1763865067123456"},
		{&leaderElectedEvent{Leader: "web-1", Token: 9, LeaseMS: 2700}, top + `"leader-elected",` + gs + `,"leader":"web-1","token":9,"lease_ms":2700}`,
			"02:31:07.123 leader-elected web-1, token 9"},
		{&leaderLostEvent{Leader: "b", Token: 9, Reason: "expired"}, top + `"leader-lost",` + gs + `,"leader":"b","token":9,"reason":"expired"}`,
			"02:31:07.123 leader-lost    b: expired, token 9"},
		{&leaderLostEvent{Leader: "web-1", Token: 9, Reason: "resigned", releasedNow: true}, top + `"leader-lost",` + gs + `,"leader":"web-1","token":9,"reason":"resigned","until":"2025-11-23T02:31:07.123000000Z"}`,
			"02:31:07.123 leader-lost    web-1: resigned, token 9"},
		{&settlingEvent{Generation: 5}, top + `"settling",` + gs + `,"generation":5}`, "02:31:07.123 settling       generation 5"},
		{&settledEvent{Generation: 5, Total: 1}, top + `"settled",` + gs + `,"generation":5,"total":1}`, "02:31:07.123 settled        1 place, generation 5"},
		{&assignedEvent{Member: "web-1", Index: 0, Total: 3, Generation: 5, LeaseMS: 5400, Of: 8, Buckets: &[]int{0, 4}, Tokens: []uint64{3, 5}, Items: []string{"a b", "c"}},
			top + `"assigned",` + gs + `,"member":"web-1","index":0,"total":3,"generation":5,"lease_ms":5400,"of":8,"buckets":[0,4],"tokens":[3,5],"items":["a b","c"]}`,
			"02:31:07.123 assigned       index 0 of 3, generation 5, 2 buckets of 8, 2 items\n    a b\n    c"},
		{&assignedEvent{Member: "web-1", Index: 0, Total: 3, Generation: 5, LeaseMS: 5400, Of: 2, Buckets: &[]int{}},
			top + `"assigned",` + gs + `,"member":"web-1","index":0,"total":3,"generation":5,"lease_ms":5400,"of":2,"buckets":[]}`,
			"02:31:07.123 assigned       index 0 of 3, generation 5, 0 buckets of 2"},
		{&revokedEvent{Member: "web-1", Generation: 5, Reason: "settling", Buckets: &[]int{4}}, top + `"revoked",` + gs + `,"member":"web-1","generation":5,"reason":"settling","until":"2025-11-23T02:31:07.123000000Z","buckets":[4]}`,
			"02:31:07.123 revoked        settling, generation 5, lets go of 1 bucket"},
		{&revokedEvent{Member: "web-1", Generation: 5, Reason: "settling", Buckets: &[]int{}}, top + `"revoked",` + gs + `,"member":"web-1","generation":5,"reason":"settling","until":"2025-11-23T02:31:07.123000000Z","buckets":[]}`,
			"02:31:07.123 revoked        settling, generation 5, keeps its buckets"},
		{&assignedEvent{Member: "web-1", Index: 2, Total: 3, Generation: 5, LeaseMS: 5400},
			top + `"assigned",` + gs + `,"member":"web-1","index":2,"total":3,"generation":5,"lease_ms":5400}`,
			"02:31:07.123 assigned       index 2 of 3, generation 5"},
		{&revokedEvent{Member: "web-1", Generation: 5, Reason: "settling"}, top + `"revoked",` + gs + `,"member":"web-1","generation":5,"reason":"settling","until":"2025-11-23T02:31:07.123000000Z"}`,
			"02:31:07.123 revoked        settling, generation 5"},
		{&revokedEvent{Member: "web-1", Generation: 5, Reason: "expired", Until: "2025-11-23T02:31:00.000000000Z"},
			top + `"revoked",` + gs + `,"member":"web-1","generation":5,"reason":"expired","until":"2025-11-23T02:31:00.000000000Z"}`,
			"02:31:07.123 revoked        expired, generation 5"},
		{newMessage("b", "all", "text", []byte("hi\nthere")), top + `"message",` + gs + `,"from":"b","to":"all","topic":"text","data":"hi\nthere"}`,
			"02:31:07.123 message        b to all: hi there"},
		{newMessage("", "leader", "work", []byte{0xff, 0}), top + `"message",` + gs + `,"from":"","to":"leader","topic":"work","data_base64":"/wA="}`,
			"02:31:07.123 message        a client to leader, work: base64 /wA="},
		{newMessage("b", "all", "text", nil), top + `"message",` + gs + `,"from":"b","to":"all","topic":"text","data":""}`,
			"02:31:07.123 message        b to all:"},
		{&ballotEvent{Ballot: "k1", Topic: "go?", Kind: "majority", Deadline: "2025-11-23T02:31:09.000000000Z", Of: 5},
			top + `"ballot",` + gs + `,"ballot":"k1","topic":"go?","kind":"majority","deadline":"2025-11-23T02:31:09.000000000Z","of":5}`,
			"02:31:07.123 ballot         k1: go?, majority of 5"},
		{&verdictEvent{Ballot: "k1", Topic: "go?", Kind: "majority", Verdict: "yes", Yes: 3, No: 1, Of: 5, Silent: []string{"c"}},
			top + `"verdict",` + gs + `,"ballot":"k1","topic":"go?","kind":"majority","verdict":"yes","yes":3,"no":1,"abstain":0,"of":5,"silent":["c"]}`,
			"02:31:07.123 verdict        yes: k1: go? (3 yes, 1 no, 0 abstain of 5), silent: c"},
		{&verdictEvent{Ballot: "k1", Verdict: "no"}, top + `"verdict",` + gs + `,"ballot":"k1","topic":"","kind":"","verdict":"no","yes":0,"no":0,"abstain":0,"of":0,"silent":[]}`, ""},
		{&actionEvent{Ballot: "k1", Member: "b", Status: "late", LateMS: &late}, top + `"action",` + gs + `,"ballot":"k1","member":"b","status":"late","late_ms":12}`,
			"02:31:07.123 action         b: late, ballot k1, 12 ms late"},
		{&actionEvent{Ballot: "k1", Member: "b", Status: "done"}, top + `"action",` + gs + `,"ballot":"k1","member":"b","status":"done"}`,
			"02:31:07.123 action         b: done, ballot k1"},
	}
}

// The event lines are a contract: exactly these fields in this order, one object a line, one Write a line.
func TestEventLines(t *testing.T) {
	for _, tt := range everyEvent() {
		w, out := testWriter(true)
		if err := w.emit(tt.e); err != nil {
			t.Fatal(err)
		}
		if len(out.lines) != 1 || out.lines[0] != tt.json+"\n" {
			t.Errorf("%s\n got %q\nwant %q", tt.e.kind(), out.lines, tt.json)
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(out.lines[0]), &m); err != nil {
			t.Errorf("%s: %v", tt.e.kind(), err)
		}
		hook, err := w.hookLine(tt.e)
		if err != nil || string(hook) != out.lines[0] {
			t.Errorf("%s: the hook's line %q differs: %v", tt.e.kind(), hook, err)
		}
		if tt.text != "" {
			w, out = testWriter(false)
			if err := w.emit(tt.e); err != nil || out.lines[0] != tt.text+"\n" {
				t.Errorf("%s\n got %q\nwant %q", tt.e.kind(), out.lines, tt.text)
			}
		}
	}
	w, out := testWriter(true)
	w.group, w.election, w.self = "", "reports", ""
	w.emit(&settlingEvent{Generation: 1})
	if want := `"type":"settling","election":"reports","self":"","generation":1}`; !strings.Contains(out.lines[0], want) {
		t.Errorf("got %q, want %q in it", out.lines[0], want)
	}
}

// A grant that has ended by the time its line is stamped is not announced.
func TestEventWhile(t *testing.T) {
	w, out := testWriter(true)
	now := w.now()
	deadline := now.Add(time.Second)
	w.now = func() time.Time { now = now.Add(600 * time.Millisecond); return now }
	live := func() bool { return now.Before(deadline) }
	for i, want := range []bool{true, false} {
		if got, err := w.emitWhile(live, &assignedEvent{Member: "web-1"}); got != want || err != nil {
			t.Errorf("emitWhile %d = %v, %v, want %v", i, got, err, want)
		}
	}
	if len(out.lines) != 1 {
		t.Errorf("%d lines, want 1", len(out.lines))
	}
}

// Writers from many goroutines give whole lines, in the order of their times.
func TestEventsTogether(t *testing.T) {
	out := &writes{}
	w := &eventWriter{group: "g", json: true, out: out, now: time.Now}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				w.emit(&settlingEvent{Generation: uint64(i*50 + j)})
			}
		})
	}
	wg.Wait()
	last := ""
	for _, l := range out.lines {
		var h head
		if err := json.Unmarshal([]byte(l), &h); err != nil || strings.Count(l, "\n") != 1 {
			t.Fatalf("%q: %v", l, err)
		}
		if h.Time < last {
			t.Fatalf("%s after %s", h.Time, last)
		}
		last = h.Time
	}
	if len(out.lines) != 400 {
		t.Errorf("%d lines, want 400", len(out.lines))
	}
}

// When standard output is gone, every later event says so.
func TestEventsBroken(t *testing.T) {
	w, out := testWriter(true)
	out.fail = syscall.EPIPE
	first := w.emit(&reconnectedEvent{})
	out.fail = nil
	if second := w.emit(&reconnectedEvent{}); !errors.Is(first, syscall.EPIPE) || second != first {
		t.Errorf("emit = %v, then %v, want EPIPE twice", first, second)
	}
}
