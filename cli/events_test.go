package cli

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

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
