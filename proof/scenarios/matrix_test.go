//go:build scenarios && linux

package scenarios

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// The matrix has a row for each scenario and kind of servers.
var matrix table

type table struct {
	mu   sync.Mutex
	rows []*row
}

type row struct {
	scenario    string
	kind        kind
	order       int
	fault       string
	evidence    string
	terms       int
	generations int
	leaderless  time.Duration
	orphaned    string
	refused     int
	votes       string
	parts       string
	result      string
}

func (m *table) add(scenario string, k kind, order int) *row {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &row{scenario: scenario, kind: k, order: order}
	m.rows = append(m.rows, r)
	return r
}

// lines are the table as Markdown. Scenarios that did not run, by choice of who ran them, are not in it.
func (m *table) lines() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortFunc(m.rows, func(a, b *row) int {
		return cmp.Or(cmp.Compare(a.order, b.order), -strings.Compare(a.kind.name, b.kind.name))
	})
	l := []string{
		"| scenario | servers | fault | seen | terms | generations | longest without a leader | an item without an owner | votes | parts in actions | refused writes | result |",
		"|---|---|---|---|---|---|---|---|---|---|---|---|",
	}
	for _, r := range m.rows {
		switch r.result {
		case "":
			continue
		case "n/a":
			l = append(l, fmt.Sprintf("| %s | %s | %s | | | | | | | | | n/a |", r.scenario, r.kind.name, r.fault))
		default:
			l = append(l, fmt.Sprintf("| %s | %s, lease %s | %s | %s | %d | %d | %s | %s | %s | %s | %d | %s |", r.scenario, r.kind.name, r.kind.lease, r.fault, r.evidence,
				r.terms, r.generations, r.leaderless.Round(10*time.Millisecond), r.orphaned, r.votes, r.parts, r.refused, r.result))
		}
	}
	return l
}

const marks = "<!-- matrix -->"

// print shows the table, and puts it into the document if there is one.
func (m *table) print() error {
	l := m.lines()
	if len(l) == 2 {
		return nil // nothing of it was run
	}
	text := strings.Join(l, "\n") + "\n"
	fmt.Print("\n", text, "\n")
	if *document == "" {
		return nil
	}
	b, err := os.ReadFile(*document)
	if err != nil {
		return err
	}
	parts := strings.Split(string(b), marks+"\n")
	if len(parts) != 3 {
		return fmt.Errorf("%s: want two lines %s, with the table between them", *document, marks)
	}
	parts[1] = fmt.Sprintf("Last seen: %s, %d processors, %d round(s) of each.\n\n%s", runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), *rounds, text)
	return os.WriteFile(*document, []byte(strings.Join(parts, marks+"\n")), 0o644)
}
