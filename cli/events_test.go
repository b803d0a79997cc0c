package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/testenv"
)

// A process that stands still right before the line of an event is stamped tells first what has ended meanwhile.
func TestEndsComeFirst(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ns := e.Namespace()
		el, err := leader.New(ns, "e", leader.Config{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		term, err := el.Campaign(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		still := func() {}
		j := newJournal(&eventWriter{election: "e", self: "a", json: true, out: &out, now: func() time.Time { still(); return time.Now() }}, ns.Timings())
		j.inc = func() (uint64, bool) { return 0, false }
		if !j.elect(term) {
			t.Fatal("a term that is held was not announced")
		}
		still = func() { still = func() {}; e.Suspend(ns, time.Hour) }
		j.emit(&messageEvent{From: "b", To: "a", Topic: "text"})
		var kinds []string
		last := ""
		for line := range strings.Lines(out.String()) {
			var l struct{ Type, Time string }
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.Time < last {
				t.Errorf("%s after %s: %v", line, last, err)
			}
			kinds, last = append(kinds, l.Type), l.Time
		}
		if want := []string{"leader-elected", "leader-lost", "message"}; !slices.Equal(kinds, want) {
			t.Errorf("got %v, want %v", kinds, want)
		}
	})
}

// docs/events.md names each event that `join` writes, and in its row each of the event's own fields.
func TestEventsDocument(t *testing.T) {
	b, err := os.ReadFile("../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "| `") {
			rows = append(rows, line)
		}
	}
	for _, e := range []event{&joinedEvent{}, &leftEvent{}, &disconnectedEvent{}, &reconnectedEvent{}, &memberJoinedEvent{}, &memberLeftEvent{},
		&leaderElectedEvent{}, &leaderLostEvent{}, &settlingEvent{}, &settledEvent{}, &assignedEvent{}, &revokedEvent{}, &messageEvent{}, &ballotEvent{}, &verdictEvent{}} {
		var row string
		for _, r := range rows {
			if first, _, _ := strings.Cut(r[2:], " | "); strings.Contains(first, "`"+e.kind()+"`") {
				row = r
			}
		}
		if row == "" {
			t.Errorf("docs/events.md has no row for %q", e.kind())
			continue
		}
		of := reflect.TypeOf(e).Elem()
		for i := range of.NumField() {
			field, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if field == "" || field == "buckets" { // buckets: `join` has none
				continue
			}
			if !strings.Contains(row, "`"+field+"`") {
				t.Errorf("docs/events.md: the row of %q does not have its field %q", e.kind(), field)
			}
		}
	}
}
