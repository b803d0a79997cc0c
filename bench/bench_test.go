package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if inChild() { // the children of the tests are the test's own binary
		os.Exit(child())
	}
	os.Exit(m.Run())
}

// Everything once, with tiny numbers: each benchmark still works, and says something about both sides. How fast it all
// was is not looked at.
func TestEveryBenchmark(t *testing.T) {
	var said strings.Builder
	b := &bench{scale: tiny, progress: &said}
	r, err := b.measure(t.Context(), t.TempDir(), regexp.MustCompile(""))
	if err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	r.judge()
	with := map[string]int{}
	for _, row := range r.Rows {
		with[row.Bench]++
		if row.What == "" || row.Unit == "" || row.Quorate == nil || (row.Theirs == nil) != (row.Peer == "") {
			t.Errorf("row is not whole: %+v", row)
			continue
		}
		for _, s := range []*Stat{row.Quorate, row.Theirs} {
			if s != nil && (s.N < 1 || s.P50 < 0 || s.P50 > s.P99 || s.P99 > s.Max || math.IsNaN(s.Max) || math.IsInf(s.Max, 0)) {
				t.Errorf("%s: makes no sense: %+v", row.What, *s)
			}
		}
		if len(row.Verdicts) != len(row.Targets) {
			t.Errorf("%s: %d verdicts of %d targets", row.What, len(row.Verdicts), len(row.Targets))
		}
	}
	for _, m := range all {
		if with[m.name] == 0 {
			t.Errorf("%s has no row", m.name)
		}
	}
	for name, print := range map[string]func(io.Writer) error{"text": r.text, "json": r.json, "markdown": r.markdown} {
		var out bytes.Buffer
		if err := print(&out); err != nil || out.Len() < 1000 {
			t.Errorf("%s: %d bytes, %v", name, out.Len(), err)
		}
		if name == "json" && !json.Valid(out.Bytes()) {
			t.Error("json is not valid")
		}
	}
}

// A row for which there was no time is told as such, and meets nothing.
func TestNotMeasured(t *testing.T) {
	r := Row{Bench: "acquire", What: "x", Unit: "ms", Peer: "etcd", Theirs: single(1), Targets: []Target{{Of: "p50", Limit: 1}}}
	r.judge()
	if !r.Missed || len(r.Verdicts) != 1 || r.Verdicts[0] != "not measured" || len(r.cells()) == 0 {
		t.Errorf("got %+v", r)
	}
}

// Only what stands between the marks is replaced, and it can be replaced again.
func TestUpdate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte("before\n"+beginMark+"old\n"+endMark+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Report{Machine: "a machine", Rows: []Row{{Bench: "b", What: "w", Unit: "ms", Quorate: single(1), Note: "why"}}}
	for range 2 {
		if err := r.update(file); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	want := "before\n" + beginMark + "Measured on a machine, in one  run of 0 s.\n\n### b\n\n| " + strings.Join(header, " | ") + " |\n|" +
		strings.Repeat("---|", len(header)) + "\n| w, ms | 1.00 |  | 1 |  |  |  |  |  |  |  |\n\n- w: why\n" + endMark + "after\n"
	if err != nil || string(got) != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}
	if err := r.update(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that does not exist is updated")
	}
}

func TestPercentile(t *testing.T) {
	var hundred, two []float64
	for i := range 100 {
		hundred = append(hundred, float64(i+1))
	}
	two = []float64{3, 8}
	for _, c := range []struct {
		of   []float64
		p    float64
		want float64
	}{{hundred, 50, 50}, {hundred, 99, 99}, {two, 50, 3}, {two, 99, 8}, {two[:1], 50, 3}, {hundred, 0, 1}} {
		if got := percentile(c.of, c.p); got != c.want {
			t.Errorf("percentile %v of %d values: got %v, want %v", c.p, len(c.of), got, c.want)
		}
	}
}

func TestJudge(t *testing.T) {
	less := Row{Unit: "ms", Quorate: &Stat{P50: 2, P99: 8, N: 9}, Theirs: &Stat{P50: 1, P99: 80, N: 9}, Targets: []Target{{"p50", 1.5}, {"p99", 8}}}
	more := Row{Unit: "a second", More: true, Quorate: &Stat{P50: 2, N: 9}, Theirs: &Stat{P50: 1, N: 9}, Targets: []Target{{"p50", 3}}}
	less.judge()
	more.judge()
	if less.RatioP50 != 0.5 || less.RatioP99 != 10 || !slices.Equal(less.Verdicts, []string{"missed by 0.500 ms", "met"}) || !less.Missed {
		t.Errorf("less is better: %+v", less)
	}
	if more.RatioP50 != 2 || !slices.Equal(more.Verdicts, []string{"missed by 1.00 a second"}) {
		t.Errorf("more is better: %+v", more)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.01234: "0.0123", 1.5: "1.50", 12.34: "12.3", 999: "999", 1234: "1,234", 1234567: "1,234,567", -1234: "-1,234", -0.5: "-0.500"} {
		if got := number(v); got != want {
			t.Errorf("number(%v): got %s, want %s", v, got, want)
		}
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"-run", "("}, {"-run", "nothing"}, {"acquire"}, {"-no"}} {
		if err := run(context.Background(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// What a child cannot do is told to its parent, and not waited for.
func TestChildFails(t *testing.T) {
	b := &bench{scale: tiny, progress: io.Discard, children: &children{}}
	defer b.children.end()
	if _, err := b.start(t.Context(), "no-such-role", childArgs{}, nil); err == nil || !strings.Contains(err.Error(), "no such role") {
		t.Errorf("got %v", err)
	}
	if _, err := b.start(t.Context(), "nats-server", childArgs{}, nil); err == nil || !strings.Contains(err.Error(), "store directory") {
		t.Errorf("got %v", err)
	}
}
