package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// print writes text to standard output in one Write.
func (a *app) print(text string) error {
	a.quiet()
	_, err := io.WriteString(a.stdout, text)
	return outputError(err)
}

// printJSON writes v as one line of JSON in one Write.
func (a *app) printJSON(v any) error {
	line, err := jsonLine(v)
	if err != nil {
		return err
	}
	a.quiet()
	_, err = a.stdout.Write(line)
	return outputError(err)
}

func outputError(err error) error {
	if err == nil {
		return nil
	}
	return failure(ExitFailed, "standard output: %w", err)
}

// jsonLine is v as JSON and a newline. Text stays readable: '<', '>' and '&' are not escaped.
func jsonLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b.Bytes(), nil
}

// A table is rows under a heading, each column as wide as it must be.
type table struct {
	heading []string
	rows    [][]string
	shrink  int   // column that is cut first when the table is wider than the terminal, -1 for none
	right   []int // columns of numbers, aligned right
}

func newTable(heading ...string) *table { return &table{heading: heading, shrink: -1} }

// add adds a row. Cells come from anywhere: they are made printable.
func (t *table) add(cells ...string) {
	row := make([]string, len(t.heading))
	for i := range row {
		if i < len(cells) {
			row[i] = oneLine(cells[i])
		}
		if row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// render lays the table out, within width columns if width is not 0.
func (t *table) render(width int) string {
	widths := make([]int, len(t.heading))
	for _, row := range append([][]string{t.heading}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	const gap = 2
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	if width > 0 && total > width {
		t.narrow(widths, total-width)
	}
	var b strings.Builder
	for _, row := range append([][]string{t.heading}, t.rows...) {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString(strings.Repeat(" ", gap))
			}
			cell = cut(cell, widths[i])
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if t.alignsRight(i) {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// narrow takes so many characters off the columns: the one that is to shrink first, then whichever text is the widest. Numbers are shown whole.
func (t *table) narrow(widths []int, over int) {
	least := func(i int) int { return max(len(t.heading[i]), 4) }
	if t.shrink >= 0 {
		cut := max(min(over, widths[t.shrink]-least(t.shrink)), 0)
		widths[t.shrink] -= cut
		over -= cut
	}
	for ; over > 0; over-- {
		widest := -1
		for i, w := range widths {
			if !t.alignsRight(i) && w > least(i) && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

func (t *table) alignsRight(column int) bool {
	for _, r := range t.right {
		if r == column {
			return true
		}
	}
	return false
}

// cut shortens s to n characters, the last of them '…' when something is left out.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-1, 0)]) + "…"
}

// printTable prints the table: cut to the terminal if that is where it goes, whole for anyone else.
func (a *app) printTable(t *table) error { return a.print(t.render(a.width())) }

// width is the number of columns to keep to: COLUMNS or 80 on a terminal, 0 (any) elsewhere.
func (a *app) width() int {
	if !terminal(a.stdout) {
		return 0
	}
	if n, err := strconv.Atoi(a.env["COLUMNS"]); err == nil && n >= 40 {
		return n
	}
	return 80
}

// A palette colours text, or leaves it alone.
type palette struct{ on bool }

// colours are on for a terminal, unless NO_COLOR is set or the terminal is a dumb one (no-color.org).
func (a *app) colours(w io.Writer) palette {
	return palette{on: terminal(w) && a.env["NO_COLOR"] == "" && a.env["TERM"] != "dumb"}
}

func (p palette) paint(code, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p palette) good(text string) string { return p.paint("32", text) } // green
func (p palette) bad(text string) string  { return p.paint("31", text) } // red
func (p palette) warn(text string) string { return p.paint("33", text) } // yellow
func (p palette) mark(text string) string { return p.paint("36", text) } // cyan
func (p palette) dim(text string) string  { return p.paint("2", text) }

// ago is how long ago t was: "now", "3s ago", "5m ago", "2h ago", "4d ago"; "-" for the zero time. A time ahead of our
// clock (clocks differ) is "now".
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	switch d := now.Sub(t); {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", d/time.Hour)
	default:
		return fmt.Sprintf("%dd ago", d/(24*time.Hour))
	}
}

// agoText is ago for a time as records carry it (RFC 3339); what does not parse is shown as it is.
func agoText(now time.Time, s string) string {
	if s == "" {
		return "-"
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return oneLine(s)
	}
	return ago(now, t)
}

// sortedKeys are the keys of a map, in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
