package house

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPackagesAreDocumented(t *testing.T) {
	all := sources(t)
	for _, pkg := range packages(all) {
		if strings.HasPrefix(pkg, "cmd/") || example(pkg) {
			continue // one file, main.go; checked below
		}
		i := slices.IndexFunc(all, func(s *source) bool { return s.pkg == pkg && strings.HasSuffix("/"+s.path, "/doc.go") })
		if i < 0 {
			t.Errorf("%s has no doc.go", pkg)
			continue
		}
		if d := all[i].file.Doc; d == nil || len(d.Text()) < 200 {
			t.Errorf("%s/doc.go does not say what the package is and promises", pkg)
		}
		for _, s := range all {
			if s.pkg == pkg && s != all[i] && !s.test && s.file.Doc != nil {
				t.Errorf("%s: the package comment belongs into doc.go", s.path)
			}
		}
	}
	for _, s := range all {
		if strings.HasSuffix(s.path, "/main.go") && s.file.Name.Name == "main" && s.file.Doc == nil {
			t.Errorf("%s has no comment that says what the program does", s.path)
		}
	}
}

// TestExportedNamesAreDocumented: what callers can name says what it is.
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || strings.HasPrefix(s.pkg, "internal/") || s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !wellKnown[d.Name.Name] {
					t.Errorf("%s: %s has no comment", s.line(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, sp := range d.Specs {
					if ts, ok := sp.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil && ts.Comment == nil {
						t.Errorf("%s: type %s has no comment", s.line(ts.Pos()), ts.Name.Name)
					}
				}
			}
		}
	}
}

// wellKnown are methods whose name says it all.
var wellKnown = map[string]bool{"Error": true, "String": true, "Unwrap": true, "Is": true}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	x := d.Recv.List[0].Type
	if p, ok := x.(*ast.StarExpr); ok {
		x = p.X
	}
	id, ok := x.(*ast.Ident)
	return ok && id.IsExported()
}

// sleepers are the packages whose tests may sleep: in a synctest bubble, where it takes no time, or with the reason given.
var sleepers = map[string]string{
	".":                  "in a bubble",
	"testenv":            "in a bubble",
	"internal/kv":        "in a bubble",
	"leader":             "in a bubble",
	"coord":              "in a bubble",
	"partition":          "in a bubble",
	"vote":               "in a bubble",
	"fence":              "in a bubble",
	"proof":              "in a bubble",
	"internal/bloc":      "in a bubble",
	"internal/clock":     "in a bubble",
	"internal/dashboard": "in a bubble",
	"metrics":            "in a bubble",
	"tracing":            "in a bubble",
	"examples/orders":    "in a bubble",
	"examples/timers":    "in a bubble",
}

func TestNoSleepsOutsideBubbles(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		bubbles := strings.Contains(s.text, "testenv.Run(") || strings.Contains(s.text, "testenv.Bubble(") || strings.Contains(s.text, "synctest.Test(")
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && (sleepers[s.pkg] == "" || !bubbles) {
					t.Errorf("%s: a test that sleeps outside of a bubble is slow, or fails when the machine is: wait for the condition", s.line(n.Pos()))
				}
			}
			return true
		})
	}
}

// TestPackagesHaveExamples: whoever looks at a package that he can import sees it at work; examples are run, and what they print is checked.
func TestPackagesHaveExamples(t *testing.T) {
	all := sources(t)
	prints := regexp.MustCompile(`(?m)^\t// Output:$`)
	for _, pkg := range packages(all) {
		if strings.HasPrefix(pkg, "internal/") || strings.HasPrefix(pkg, "cmd/") || strings.HasPrefix(pkg, "proof") || example(pkg) {
			continue // not for users: proof is tests only
		}
		if !slices.ContainsFunc(all, func(s *source) bool {
			return s.pkg == pkg && strings.HasSuffix("/"+s.path, "/example_test.go") && prints.MatchString(s.text)
		}) {
			t.Errorf("%s has no example_test.go whose output is checked", pkg)
		}
	}
}

// The marks are put together here so that this file does not carry them itself.
var unfinished = regexp.MustCompile(`\b(` + "TO" + `DO|FIX` + `ME|XX` + `X)\b|not implemented|\bt\.Skip`)

func TestNothingIsUnfinishedOrSkipped(t *testing.T) {
	for _, s := range sources(t) {
		for i, line := range strings.Split(s.text, "\n") {
			if unfinished.MatchString(line) && s.path != "internal/house/packages_test.go" {
				t.Errorf("%s:%d: unfinished or skipped: %s", s.path, i+1, strings.TrimSpace(line))
			}
		}
	}
}

func TestModuleIsWhatUsersGet(t *testing.T) {
	mod := read(t, "go.mod")
	if regexp.MustCompile(`(?m)^(replace|exclude)\b`).MatchString(mod) {
		t.Error("go.mod replaces or excludes modules: whoever imports this module gets others than the tests had")
	}
	if !strings.HasPrefix(mod, "module "+module+"\n") {
		t.Errorf("go.mod does not begin with module %s", module)
	}
}
