package quorate_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate"
)

// TestOperationsTimings: the table of leases in docs/operations.md says what Explain says.
func TestOperationsTimings(t *testing.T) {
	b, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (\d+ m?s)(?: \(default\))? \| ([\d. a-z]+) to ([\d.]+) s \| ([\d.]+) s \| ([\d.]+) s(, and any election of NATS)? \| ([\d,]+) each second \|$`).FindAllStringSubmatch(string(b), -1)
	if len(rows) != 3 {
		t.Fatalf("docs/operations.md: %d rows of leases found, want 3", len(rows))
	}
	// In units of 100 ms, or 10 ms: what may take so long is rounded up, what is survived down.
	short := func(d, unit time.Duration, up bool) string {
		if up {
			d += unit - 1
		}
		return strconv.FormatFloat(d.Truncate(unit).Seconds(), 'f', -1, 64)
	}
	for _, r := range rows {
		lease, err := time.ParseDuration(strings.ReplaceAll(r[1], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		e, err := quorate.Explain(quorate.Derive(lease), quorate.Situation{Members: 100})
		if err != nil {
			t.Fatal(err)
		}
		election := ""
		if e.SurvivesElection {
			election = ", and any election of NATS"
		}
		beats := fmt.Sprintf("%.0f", e.HeartbeatsPerSecond)
		if len(beats) > 3 {
			beats = beats[:len(beats)-3] + "," + beats[len(beats)-3:]
		}
		want := []string{r[1], short(e.CrashUsual, 100*time.Millisecond, true), short(e.CrashFailover, 100*time.Millisecond, true),
			short(e.Reassignment, 100*time.Millisecond, true), short(e.TermSilence, 10*time.Millisecond, false), election, beats}
		for i, w := range want {
			if r[i+1] != w {
				t.Errorf("docs/operations.md, lease %v: says %q, it is %q", lease, r[i+1], w)
			}
		}
	}
}
