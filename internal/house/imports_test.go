package house

import (
	"go/ast"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// machines are the pure ones: told the time, told what happened, they say what to do (docs/decisions.md, D1).
var machines = []string{"internal/ballot", "internal/bloc/session", "internal/guardian/deadline", "internal/lease", "internal/offset", "internal/seat", "internal/settle"}

// allowed says what of this module each package may import. Imports run one way:
//
//	cli -> partition, vote -> coord -> leader -> quorate -> internal/kv
//
// "+ x" stands for x and all that x may import.
var allowed = map[string][]string{
	"internal/clock":  {},
	"internal/wire":   {},
	"internal/kv":     {"internal/clock", "internal/wire"},
	"internal/ballot": {"internal/clock", "internal/wire", "internal/offset"},
	"internal/lease":  {"internal/clock", "internal/wire"},
	"internal/offset": {"internal/clock"},
	"internal/seat":   {"internal/clock", "internal/wire"},
	"internal/settle": {"internal/clock", "internal/wire"},
	"internal/sim":    {"internal/clock", "internal/wire", "internal/ballot", "internal/lease", "internal/offset", "internal/seat", "internal/settle"},
	"internal/inner":  {"+ internal/kv"},
	"internal/house":  {},
	".":               {"+ internal/inner"},
	"leader":          {"+ .", "internal/lease"},
	"coord":           {"+ leader", "internal/ballot", "internal/offset", "internal/seat", "internal/settle"},
	"partition":       {"+ coord"},
	"vote":            {"+ coord"},
	"proof":           {},                // tests only
	"fence":           {"internal/wire"}, // its headers; it guards without the rest of quorate
	"embedded":        {"+ internal/kv", "internal/permit", "internal/suggest"},
	"testenv":         {"+ coord"},
	"metrics":         {"."},
	"tracing":         {"."},
	"cli":             {"metrics", "+ partition", "+ vote", "embedded", "internal/eventcheck", "internal/bloc", "internal/dashboard", "+ internal/guardian", "internal/suggest", "internal/permit"},
	"cmd/quorate":     {"cli"},

	"internal/dice":         {}, // tests only
	"internal/eventcheck":   {},
	"internal/permit":       {"internal/wire"},
	"internal/suggest":      {},
	"internal/bloc":         {"+ coord", "internal/bloc/session"},
	"internal/bloc/client":  {},
	"internal/planted":      {},
	"internal/dashboard":    {"+ vote"},
	"internal/guardian":     {"internal/clock", "internal/guardian/deadline"},
	"internal/bloc/session": {"internal/clock"},

	"internal/guardian/deadline": {"internal/clock"},
	"proof/scenarios":            {},
	"proof/containers":           {},
	"proof/documents":            {}, // tests only
}

// servers are the packages that may import nats-server outside of tests.
var servers = []string{"embedded", "testenv", "cli"}

// observers are the modules of metrics and traces, each with the one package that may import it outside of tests: whoever does not import that gets none of it (docs/decisions.md, D49).
var observers = map[string]string{"github.com/prometheus": "metrics", "go.opentelemetry.io": "tracing"}

// outside are the packages that are not library: what a user's program gets only if it asks for it. They may import
// further modules.
var outside = append([]string{"cmd/quorate"}, servers...)

// modules are what library packages may import besides the standard library.
var modules = []string{
	"github.com/nats-io/nats.go", "github.com/nats-io/nuid", "github.com/nats-io/nkeys",
	"github.com/cespare/xxhash/v2", "golang.org/x/sys",
}

// example says whether a package only shows how the others are used.
func example(pkg string) bool { return strings.HasPrefix(pkg, "examples/") }

func mayImport(pkg string, seen map[string]bool) map[string]bool {
	for _, a := range allowed[pkg] {
		p, all := strings.CutPrefix(a, "+ ")
		seen[p] = true
		if all {
			mayImport(p, seen)
		}
	}
	return seen
}

func TestImportDirections(t *testing.T) {
	for _, s := range sources(t) {
		if _, known := allowed[s.pkg]; !known && !example(s.pkg) {
			t.Errorf("%s: package %s stands nowhere in the order of imports: add it to allowed", s.path, s.pkg)
			continue
		}
		if s.test || example(s.pkg) {
			continue // tests and examples stand above everything
		}
		may := mayImport(s.pkg, map[string]bool{})
		for _, p := range s.imports() {
			if q, ok := own(p); ok && !may[q] {
				t.Errorf("%s: package %s must not import %s", s.path, s.pkg, q)
			}
		}
	}
}

func TestForeignImports(t *testing.T) {
	within := func(path string, l []string) bool {
		return slices.ContainsFunc(l, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") })
	}
	for _, s := range sources(t) {
		for _, p := range s.imports() {
			first, _, _ := strings.Cut(p, "/")
			if _, ok := own(p); ok || !strings.Contains(first, ".") {
				continue // ours, or the standard library's
			}
			server := within(p, []string{"github.com/nats-io/nats-server/v2"})
			observer := ""
			for m, pkg := range observers {
				if within(p, []string{m}) {
					observer = pkg
				}
			}
			switch {
			case s.test:
			case observer != "":
				if s.pkg != observer {
					t.Errorf("%s: imports %s; only package %s and tests may", s.path, p, observer)
				}
			case server && !slices.Contains(servers, s.pkg):
				t.Errorf("%s: imports %s; only %s and tests may", s.path, p, strings.Join(servers, ", "))
			case !server && !slices.Contains(outside, s.pkg) && !within(p, modules):
				t.Errorf("%s: imports %s; library packages import %s", s.path, p, strings.Join(modules, ", "))
			}
		}
	}
}

// TestLibraryBringsNoObservers: what a program gets that imports the library packages has neither Prometheus nor OpenTelemetry in it, by whatever way.
func TestLibraryBringsNoObservers(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./leader", "./coord", "./partition", "./vote", "./fence", "./embedded")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), module+"/coord\n") {
		t.Fatalf("go list says\n%s", out)
	}
	for p := range strings.FieldsSeq(string(out)) {
		for m := range observers {
			if strings.HasPrefix(p, m+"/") {
				t.Errorf("the library packages bring %s", p)
			}
		}
	}
}

// TestMachinesArePure: the same inputs give the same effects, in a simulation as in production.
func TestMachinesArePure(t *testing.T) {
	banned := []string{"context", "crypto/rand", "log", "log/slog", "math/rand", "math/rand/v2", "net", "os", "runtime", "sync", "sync/atomic"}
	clocks := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}
	found := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || !slices.Contains(machines, s.pkg) {
			if !s.test && strings.HasSuffix(s.path, "/machine.go") {
				t.Errorf("%s: a machine outside of %s", s.path, strings.Join(machines, ", "))
			}
			continue
		}
		found[s.pkg] = found[s.pkg] || strings.HasSuffix(s.path, "/machine.go")
		for _, p := range s.imports() {
			if slices.Contains(banned, p) || strings.HasPrefix(p, "github.com/nats-io/") {
				t.Errorf("%s: a pure machine must not import %s", s.path, p)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a pure machine must not start a goroutine", s.line(n.Pos()))
			case *ast.ChanType:
				t.Errorf("%s: a pure machine must not have a channel", s.line(n.Pos()))
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if ok && (x.Name == "time" && slices.Contains(clocks, n.Sel.Name) || x.Name == "clock" && n.Sel.Name == "Now") {
					t.Errorf("%s: a pure machine is told the time: it must not call %s.%s", s.line(n.Pos()), x.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
	for _, m := range machines {
		if !found[m] {
			t.Errorf("%s has no machine.go", m)
		}
	}
}
