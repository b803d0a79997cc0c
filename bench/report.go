package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
)

// A Stat sums up what was measured of one side of a row.
type Stat struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
	N   int     `json:"n"`
}

// A Target is what quorate is to reach (design section 9).
type Target struct {
	Of    string  `json:"of"` // p50, p99 or max
	Limit float64 `json:"limit"`
}

// A Row is one line of the report.
type Row struct {
	Bench   string   `json:"bench"`
	What    string   `json:"what"`
	Unit    string   `json:"unit"`
	More    bool     `json:"more_is_better,omitempty"`
	Quorate *Stat    `json:"quorate"`
	Peer    string   `json:"peer,omitempty"`
	Theirs  *Stat    `json:"theirs,omitempty"`
	Targets []Target `json:"targets,omitempty"`
	Note    string   `json:"note,omitempty"`
	// The verdicts, worked out when the report is printed.
	RatioP50 float64  `json:"ratio_p50,omitempty"` // how many times better quorate is; below 1: worse
	RatioP99 float64  `json:"ratio_p99,omitempty"`
	Verdicts []string `json:"verdicts,omitempty"`
	Missed   bool     `json:"missed,omitempty"`
}

// A Report is one run.
type Report struct {
	Machine string  `json:"machine"`
	Scale   string  `json:"scale"`
	Seconds float64 `json:"seconds"`
	Rows    []Row   `json:"rows"`
}

func (s *Stat) of(name string) float64 {
	switch name {
	case "p50":
		return s.P50
	case "p99":
		return s.P99
	}
	return s.Max
}

// judge works out ratios and verdicts.
func (r *Row) judge() {
	ratio := func(ours, theirs float64) float64 {
		if r.More {
			ours, theirs = theirs, ours
		}
		if ours == 0 {
			return 0
		}
		return theirs / ours
	}
	if r.Theirs != nil && r.Quorate != nil {
		r.RatioP50, r.RatioP99 = ratio(r.Quorate.P50, r.Theirs.P50), ratio(r.Quorate.P99, r.Theirs.P99)
	}
	r.Verdicts, r.Missed = nil, false
	for _, t := range r.Targets {
		if r.Quorate == nil { // there was no time for one measurement
			r.Missed = true
			r.Verdicts = append(r.Verdicts, "not measured")
			continue
		}
		got := r.Quorate.of(t.Of)
		over := got - t.Limit
		if r.More {
			over = -over
		}
		if over <= 0 {
			r.Verdicts = append(r.Verdicts, "met")
			continue
		}
		r.Missed = true
		r.Verdicts = append(r.Verdicts, fmt.Sprintf("missed by %s %s", number(over), r.Unit))
	}
}

func (t Target) text(r Row) string {
	sign, of := "<=", t.Of+" "
	if r.More {
		sign = ">="
	}
	if r.Quorate == nil || r.Quorate.N == 1 {
		of = ""
	}
	return fmt.Sprintf("%s%s %s", of, sign, number(t.Limit))
}

// number prints three digits of a value, and all of those before the point.
func number(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	s := fmt.Sprintf("%.*f", digits, v)
	if digits > 0 {
		return s
	}
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// cells are a row's columns; a column of one side is empty when there is nothing to show.
func (r Row) cells() []string {
	side := func(s *Stat) []string {
		switch {
		case s == nil:
			return []string{"", "", ""}
		case s.N == 1:
			return []string{number(s.P50), "", "1"}
		}
		return []string{number(s.P50), number(s.P99), fmt.Sprint(s.N)}
	}
	ratio := ""
	if r.Theirs != nil && r.Quorate != nil && r.RatioP50 > 0 { // a ratio to nothing says nothing
		ratio = number(r.RatioP50)
		if r.Quorate.N > 1 && r.Theirs.N > 1 {
			ratio += " / " + number(r.RatioP99)
		}
	}
	var targets []string
	for _, t := range r.Targets {
		targets = append(targets, t.text(r))
	}
	c := append([]string{r.What + ", " + r.Unit}, side(r.Quorate)...)
	c = append(append(c, r.Peer), side(r.Theirs)...)
	return append(c, ratio, strings.Join(targets, "; "), strings.Join(r.Verdicts, "; "))
}

var header = []string{"what", "quorate p50", "p99", "n", "peer", "peer p50", "p99", "n", "ratio", "target", "verdict"}

func (r *Report) judge() {
	for i := range r.Rows {
		r.Rows[i].judge()
	}
}

func (r *Report) text(w io.Writer) error {
	r.judge()
	var s strings.Builder
	tw := tabwriter.NewWriter(&s, 0, 0, 2, ' ', 0)
	table := strings.Join(header, "\t") + "\n"
	for _, row := range r.Rows {
		table += strings.Join(row.cells(), "\t") + "\n"
	}
	fmt.Fprintf(&s, "%s; %s run of %.0f s\n\n", r.Machine, r.Scale, r.Seconds)
	if _, err := io.WriteString(tw, table); err != nil {
		return err
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	s.WriteString("\n")
	missed := 0
	for _, row := range r.Rows {
		if row.Note != "" {
			fmt.Fprintf(&s, "%s: %s\n", row.What, row.Note)
		}
		if row.Missed {
			missed++
		}
	}
	fmt.Fprintf(&s, "\nratio: how many times better quorate is (p50 / p99); below 1 it is worse. Rows with a missed target: %d.\n", missed)
	_, err := io.WriteString(w, s.String())
	return err
}

func (r *Report) json(w io.Writer) error {
	r.judge()
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// markdown is the generated part of docs/benchmarks.md: one table for each benchmark.
func (r *Report) markdown(w io.Writer) error {
	r.judge()
	var s strings.Builder
	fmt.Fprintf(&s, "Measured on %s, in one %s run of %.0f s.\n", r.Machine, r.Scale, r.Seconds)
	for i := 0; i < len(r.Rows); {
		name := r.Rows[i].Bench
		fmt.Fprintf(&s, "\n### %s\n\n| %s |\n|%s\n", name, strings.Join(header, " | "), strings.Repeat("---|", len(header)))
		notes := ""
		for ; i < len(r.Rows) && r.Rows[i].Bench == name; i++ {
			fmt.Fprintf(&s, "| %s |\n", strings.Join(r.Rows[i].cells(), " | "))
			if n := r.Rows[i].Note; n != "" {
				notes += fmt.Sprintf("- %s: %s\n", r.Rows[i].What, n)
			}
		}
		if notes != "" {
			s.WriteString("\n" + notes)
		}
	}
	_, err := io.WriteString(w, s.String())
	return err
}

// The marks around the generated part of a document.
const (
	beginMark = "<!-- measured: begin -->\n"
	endMark   = "<!-- measured: end -->\n"
)

// update replaces what stands between the marks of a file.
func (r *Report) update(file string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return fmt.Errorf("%s: the marks %q and %q are not there", file, strings.TrimSpace(beginMark), strings.TrimSpace(endMark))
	}
	var b strings.Builder
	b.WriteString(before + beginMark)
	if err := r.markdown(&b); err != nil {
		return err
	}
	b.WriteString(endMark + after)
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

// machine describes where this runs, without naming it.
func machine() string {
	s := fmt.Sprintf("%d cores (%s/%s)", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
				s = fmt.Sprintf("%d cores of an %s", runtime.NumCPU(), strings.TrimSpace(v))
				break
			}
		}
	}
	s += ", " + runtime.Version()
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		s += ", load average before it " + strings.Fields(string(b) + " ?")[0]
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if n, ok := measured[d.Path]; ok {
				s += ", " + n + " " + cmp.Or(d.Version, "?")
			}
		}
	}
	return s
}

// measured are the modules whose versions a report names.
var measured = map[string]string{
	"github.com/nats-io/nats-server/v2": "nats-server",
	"github.com/nats-io/nats.go":        "nats.go",
	"go.etcd.io/etcd/server/v3":         "etcd",
	"github.com/hashicorp/memberlist":   "memberlist",
}
