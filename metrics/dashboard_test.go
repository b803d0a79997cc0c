package metrics_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDashboard: what the Grafana dashboard asks for exists, with the labels that it asks for, and it shows every metric.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile("../deploy/grafana/quorate.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID, Title string
		Templating struct {
			List []struct {
				Name  string
				Query any
			}
		}
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{}
	for _, r := range table(t) {
		labels[r.name] = append(r.labels, "instance", "job")
		if r.kind == "histogram" {
			labels[r.name+"_bucket"] = append(labels[r.name], "le")
		}
	}
	shown, variables := map[string]bool{}, []string{"__rate_interval"}
	name, variable := regexp.MustCompile(`quorate_\w+`), regexp.MustCompile(`\$\{?(\w+)`)
	selector, asked := regexp.MustCompile(`(quorate_\w+)\{([^}]*)\}`), regexp.MustCompile(`(\w+)(?:=~?|!=)"`)
	by := regexp.MustCompile(`by \(([^)]*)\)`)
	check := func(where, expr string) {
		var all []string
		for _, n := range name.FindAllString(expr, -1) {
			if labels[n] == nil {
				t.Errorf("%s asks for %s, which docs/operations.md does not have", where, n)
				continue
			}
			shown[strings.TrimSuffix(n, "_bucket")] = true
			all = append(all, labels[n]...)
		}
		for _, m := range selector.FindAllStringSubmatch(expr, -1) {
			for _, l := range asked.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(labels[m[1]], l[1]) {
					t.Errorf("%s selects %s by %s, which is no label of it", where, m[1], l[1])
				}
			}
		}
		for _, m := range by.FindAllStringSubmatch(expr, -1) {
			for l := range strings.SplitSeq(m[1], ", ") {
				if !slices.Contains(all, l) {
					t.Errorf("%s groups by %s, which is no label of what it asks for", where, l)
				}
			}
		}
		for _, m := range variable.FindAllStringSubmatch(expr, -1) {
			if !slices.Contains(variables, m[1]) {
				t.Errorf("%s uses $%s, which is no variable of the dashboard", where, m[1])
			}
		}
		for _, pair := range []string{"()", "{}", "[]"} {
			if strings.Count(expr, pair[:1]) != strings.Count(expr, pair[1:]) {
				t.Errorf("%s: %s has more of one than of the other of %s", where, expr, pair)
			}
		}
	}
	for _, v := range board.Templating.List {
		if q, ok := v.Query.(map[string]any); ok {
			check("variable "+v.Name, q["query"].(string))
		}
		variables = append(variables, v.Name)
	}
	ids := map[int]bool{}
	for i, p := range board.Panels {
		if p.Title == "" || ids[p.ID] || (p.Type != "row") != (len(p.Targets) > 0) {
			t.Errorf("panel %d %q of type %s has no title, no id of its own, or nothing to show", p.ID, p.Title, p.Type)
		}
		ids[p.ID] = true
		for _, x := range p.Targets {
			check("panel "+p.Title, x.Expr)
		}
		for _, o := range board.Panels[:i] {
			a, b := p.GridPos, o.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H || a.X+a.W > 24 {
				t.Errorf("panels %q and %q lie over each other, or beyond the edge", p.Title, o.Title)
			}
		}
	}
	for _, r := range table(t) {
		if !shown[r.name] {
			t.Errorf("the dashboard does not show %s", r.name)
		}
	}
}
