package house

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// tests lists the test functions of each package: "leader.TestRun".
func tests(l []*source) map[string]bool {
	found := map[string]bool{}
	for _, s := range l {
		if !s.test {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && testName.MatchString(f.Name.Name) {
				found[s.pkg+"."+f.Name.Name] = true
			}
		}
	}
	return found
}

var testName = regexp.MustCompile(`^(Test|Fuzz|Example|Benchmark)[A-Z0-9]\w*$`)

// A planted bug: planted/NAME.patch.
type planted struct {
	name, guarantee, bug, test, diff string
}

func plantedBugs(t *testing.T) []planted {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "planted", "*.patch"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no planted bugs found: %v", err)
	}
	head := regexp.MustCompile(`(?m)\A# guarantee: ([A-Z]\d)\n# bug: (.+)\n# test: (go test .+)\n((?s:(?:diff .*?)?^--- a/.*))\z`)
	var l []planted
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".patch")
		m := head.FindStringSubmatch(read(t, "planted/"+name+".patch"))
		switch {
		case m == nil:
			t.Errorf("planted/%s.patch does not begin with the lines # guarantee, # bug, # test and then the diff", name)
		case !strings.HasPrefix(name, m[1]+"-"):
			t.Errorf("planted/%s.patch breaks %s: name it %s-...", name, m[1], m[1])
		default:
			l = append(l, planted{name, m[1], m[2], m[3], m[4]})
		}
	}
	return l
}

// TestPlantedBugsFit: each patch fits the code as it stands, and names tests that exist. That they fail then, planted/run.sh shows.
func TestPlantedBugsFit(t *testing.T) {
	known := tests(sources(t))
	file := regexp.MustCompile(`(?m)^\+\+\+ b/(\S+)$`)
	hunk := regexp.MustCompile(`(?m)^@@ .*\n((?:[ +\-\\].*\n?|\n)*)`)
	run := regexp.MustCompile(`^go test \./(\S+) .*-run '?([^' ]+)'?`)
	for _, p := range plantedBugs(t) {
		m := run.FindStringSubmatch(p.test)
		if m == nil {
			t.Errorf("planted/%s.patch: %q does not say which test of which package must fail", p.name, p.test)
			continue
		}
		for name := range strings.SplitSeq(m[2], "|") {
			if name = m[1] + "." + strings.Trim(name, "^$()"); !known[name] {
				t.Errorf("planted/%s.patch: there is no test %s", p.name, name)
			}
		}
		parts := regexp.MustCompile(`(?m)^--- a/`).Split(p.diff, -1)[1:]
		for _, part := range parts {
			f := file.FindStringSubmatch(part)
			if f == nil || strings.HasSuffix(f[1], "_test.go") {
				t.Errorf("planted/%s.patch: a bug is planted in code, not in tests", p.name)
				continue
			}
			text := read(t, f[1])
			for _, h := range hunk.FindAllStringSubmatch(part, -1) {
				var old strings.Builder
				for line := range strings.Lines(h[1]) {
					if line == "\n" { // an empty context line, its blank lost
						old.WriteString(line)
					} else if line[0] == ' ' || line[0] == '-' {
						old.WriteString(line[1:])
					}
				}
				if o := strings.TrimSuffix(old.String(), "\n"); o == "" || !strings.Contains(text, o) {
					t.Errorf("planted/%s.patch does not fit %s any more; it is to change\n%s", p.name, f[1], o)
				}
			}
		}
	}
}

// numbered are the guarantees that stand, by the number that code and tests cite.
var numbered = []string{"L1", "L2", "L3", "L4", "L5", "M1", "M2", "M3", "P1", "P2", "P3", "P4", "P5", "V1", "V2", "V3", "A1", "Q1", "F1", "F2", "F3", "C1", "C2", "W1", "W2", "W3", "W4", "W5", "W6", "S1"}

// TestGuaranteesAreProven: each guarantee names tests and planted bugs, and all that is named exists.
func TestGuaranteesAreProven(t *testing.T) {
	known := tests(sources(t))
	bugs := plantedBugs(t)
	name := regexp.MustCompile("`([a-z][a-z/]*\\.(?:Test|Fuzz|Example)\\w+)`")
	bug := regexp.MustCompile("(?m)^  - `([A-Z]\\d-[\\w-]+)`: (.*)$")
	sections := regexp.MustCompile(`(?m)^###? `).Split(read(t, "docs/guarantees.md"), -1)
	for _, g := range numbered {
		i := slices.IndexFunc(sections, func(s string) bool { return strings.HasPrefix(s, g+"\n") })
		if i < 0 {
			t.Errorf("docs/guarantees.md does not have %s", g)
			continue
		}
		if len(name.FindAllString(sections[i], -1)) == 0 {
			t.Errorf("docs/guarantees.md: no test for %s", g)
		}
		said := map[string]string{}
		for _, m := range bug.FindAllStringSubmatch(sections[i], -1) {
			said[m[1]] = m[2]
		}
		if len(said) == 0 {
			t.Errorf("docs/guarantees.md: no planted bug for %s", g)
		}
		for _, p := range bugs {
			if p.guarantee != g {
				continue
			}
			if said[p.name] != p.bug {
				t.Errorf("docs/guarantees.md, %s: add or mend the line\n  - `%s`: %s", g, p.name, p.bug)
			}
			delete(said, p.name)
		}
		for n := range said {
			t.Errorf("docs/guarantees.md, %s: there is no planted/%s.patch", g, n)
		}
	}
	for _, s := range sections {
		for _, m := range name.FindAllStringSubmatch(s, -1) {
			if !known[m[1]] {
				t.Errorf("docs/guarantees.md, %.2s: there is no test %s", s, m[1])
			}
		}
	}
	for _, p := range bugs {
		if !slices.Contains(numbered, p.guarantee) {
			t.Errorf("planted/%s.patch: there is no guarantee %s", p.name, p.guarantee)
		}
	}
}

// TestCommentsNameTests: a promise in a package comment names the test that shows it, and tests get renamed.
func TestCommentsNameTests(t *testing.T) {
	all := sources(t)
	known := tests(all)
	mentioned := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+\b`)
	for _, s := range all {
		if s.test || s.file.Doc == nil {
			continue
		}
		for _, name := range mentioned.FindAllString(s.file.Doc.Text(), -1) {
			if !known[s.pkg+"."+name] && name != "TestMain" && !strings.Contains(s.file.Doc.Text(), "func "+name) {
				t.Errorf("%s names %s, which this package does not have", s.path, name)
			}
		}
	}
}

// TestCitedNumbersAreListed: a stranger finds what 'R12' in a comment means.
func TestCitedNumbersAreListed(t *testing.T) {
	doc := read(t, "docs/decisions.md")
	cited := regexp.MustCompile(`\bR\d{1,2}\b`)
	missing := map[string]string{}
	for _, s := range sources(t) {
		if s.pkg == "internal/house" {
			continue
		}
		for _, g := range s.file.Comments {
			for _, n := range cited.FindAllString(g.Text(), -1) {
				if !strings.Contains(doc, "| "+n+" |") {
					missing[n] = s.path
				}
			}
		}
	}
	for n, p := range missing {
		t.Errorf("%s cites %s, which docs/decisions.md does not list", p, n)
	}
	decision := regexp.MustCompile(`docs/decisions\.md, (D\d+)`)
	for _, s := range sources(t) {
		for _, m := range decision.FindAllStringSubmatch(s.text, -1) {
			if !strings.Contains(doc, "**"+m[1]+". ") {
				t.Errorf("%s cites %s, which docs/decisions.md does not have", s.path, m[1])
			}
		}
	}
}

// TestLessonsAreShown: each lesson names tests that show it, and they exist.
func TestLessonsAreShown(t *testing.T) {
	known := tests(sources(t))
	name := regexp.MustCompile("`([a-z][a-z/]*)\\.((?:Test|Fuzz)\\w+)`")
	doc := read(t, "docs/decisions.md")
	for n := 1; n <= 43; n++ {
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^\| R%d \| .+ \| (.*) \|$`, n)).FindStringSubmatch(doc)
		if row == nil {
			t.Errorf("docs/decisions.md does not list R%d with what shows it", n)
			continue
		}
		all := name.FindAllStringSubmatch(row[1], -1)
		if len(all) == 0 {
			t.Errorf("docs/decisions.md: no test for R%d", n)
		}
		for _, m := range all {
			if m[1] == "quorate" {
				m[1] = "."
			}
			if !known[m[1]+"."+m[2]] {
				t.Errorf("docs/decisions.md, R%d: there is no test %s.%s", n, m[1], m[2])
			}
		}
	}
}

// documents lists the Markdown files, relative to the root.
func documents(t *testing.T) []string {
	t.Helper()
	var l []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/guides/*.md", "planted/*.md", "examples/*/*.md", "deploy/*/*.md"} {
		m, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range m {
			rel, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			l = append(l, filepath.ToSlash(rel))
		}
	}
	return l
}

// anchors are what the headings of a document can be linked to as, by GitHub's rule.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	fence := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fence = !fence
		}
		m := heading.FindStringSubmatch(line)
		if fence || m == nil {
			continue
		}
		a := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, linkText.ReplaceAllString(strings.TrimSpace(m[1]), "$1"))
		for n, base := 1, a; found[a]; n++ {
			a = fmt.Sprintf("%s-%d", base, n)
		}
		found[a] = true
	}
	return found
}

var (
	heading  = regexp.MustCompile(`^#{1,6} (.+)`)
	linkText = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	link     = regexp.MustCompile(`\]\(([^)#:\s]*)(#[^)\s]*)?\)`)
)

// TestLinksLead: what a document links to in this repository exists, the heading too.
func TestLinksLead(t *testing.T) {
	checked := 0
	for _, d := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, d), -1) {
			to := d
			if m[1] != "" {
				to = path.Join(path.Dir(d), m[1])
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s, which does not exist", d, m[1])
			} else if m[2] != "" && strings.HasSuffix(to, ".md") {
				checked++
				if !anchors(read(t, to))[m[2][1:]] {
					t.Errorf("%s links to %s%s, but %s has no such heading", d, m[1], m[2], to)
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("%d links to headings found: the search is wrong", checked)
	}
}

// public says whether users can import a package: its exported names are theirs.
func public(pkg string) bool {
	return !strings.HasPrefix(pkg, "internal/") && !strings.HasPrefix(pkg, "cmd/") && !strings.HasPrefix(pkg, "proof") && !example(pkg)
}

// exported lists what users can name: "coord.Join", "coord.Config.MinSize", "leader.Term.Live".
func exported(l []*source) map[string]bool {
	found := map[string]bool{}
	for _, s := range l {
		if s.test || !public(s.pkg) {
			continue
		}
		pkg := s.file.Name.Name
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					x := d.Recv.List[0].Type
					if p, ok := x.(*ast.StarExpr); ok {
						x = p.X
					}
					if id, ok := x.(*ast.Ident); ok {
						name = id.Name + "." + name
					}
				}
				found[pkg+"."+name] = true
			case *ast.GenDecl:
				for _, sp := range d.Specs {
					switch sp := sp.(type) {
					case *ast.ValueSpec:
						for _, n := range sp.Names {
							found[pkg+"."+n.Name] = true
						}
					case *ast.TypeSpec:
						found[pkg+"."+sp.Name.Name] = true
						var fields *ast.FieldList
						switch x := sp.Type.(type) {
						case *ast.StructType:
							fields = x.Fields
						case *ast.InterfaceType:
							fields = x.Methods
						default:
							continue
						}
						for _, f := range fields.List {
							for _, n := range f.Names {
								found[pkg+"."+sp.Name.Name+"."+n.Name] = true
							}
						}
					}
				}
			}
		}
	}
	return found
}

// TestDocumentsNameWhatIsThere: names of our packages that stand in documents as code exist. (Go in guides is compiled besides: proof/documents.)
func TestDocumentsNameWhatIsThere(t *testing.T) {
	all := sources(t)
	known := exported(all)
	fields := map[string]bool{} // what a variable of ours may have: "Config.MinSize" of whichever package
	packages := map[string]bool{}
	for name := range known {
		pkg, rest, _ := strings.Cut(name, ".")
		packages[pkg] = true
		fields[rest] = true
	}
	code := regexp.MustCompile("`[^`\n]+`")
	ours := regexp.MustCompile(`(?:^|[^\w./"-])([a-z]+)\.([A-Z]\w*)((?:\.[A-Z]\w*)?)`)
	bare := regexp.MustCompile(`^(Config|Options|HostOptions|Proposal|Term|Group|Client|Elector|Namespace|Assignment|Bucket|Partition|Message|Verdict)\.[A-Z]\w*$`)
	checked := 0
	for _, d := range documents(t) {
		if d == "CHANGELOG.md" {
			continue // of what was
		}
		for _, c := range code.FindAllString(read(t, d), -1) {
			c = strings.Trim(c, "`")
			for _, m := range ours.FindAllStringSubmatch(c, -1) {
				if !packages[m[1]] || testName.MatchString(m[2]) {
					continue
				}
				checked++
				if name := m[1] + "." + m[2]; !known[name] || m[3] != "" && !known[name+m[3]] {
					t.Errorf("%s names `%s%s`, which is not there", d, name, m[3])
				}
			}
			if bare.MatchString(c) {
				checked++
				if !fields[c] {
					t.Errorf("%s names `%s`, which no package has", d, c)
				}
			}
		}
	}
	if checked < 80 {
		t.Errorf("%d names found in documents: the search is wrong", checked)
	}
}

// TestErrorsAreExplained: docs/operations.md says what each error means that a caller can name, and each exit code, and has none that is not there.
func TestErrorsAreExplained(t *testing.T) {
	all := sources(t)
	_, doc, ok := strings.Cut(read(t, "docs/operations.md"), "\n## What every error means\n")
	if !ok {
		t.Fatal("docs/operations.md does not say what every error means")
	}
	said := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z]+\\.(?:Err\\w+|\\w+Error|Mistake))`").FindAllStringSubmatch(doc, -1) {
		said[m[1]] = true
	}
	isError := regexp.MustCompile(`^[a-z]+\.(Err[A-Z]\w*|[A-Z]\w*Error)$`)
	there := 0
	for name := range exported(all) {
		if pkg, rest, _ := strings.Cut(name, "."); !isError.MatchString(name) || pkg == "fence" && rest == "ResponseError" {
			continue // ResponseError is a function
		}
		there++
		if !said[name] {
			t.Errorf("docs/operations.md does not say what %s means", name)
		}
		delete(said, name)
	}
	delete(said, "embedded.Mistake")
	for name := range said {
		t.Errorf("docs/operations.md explains %s, which is not there", name)
	}
	if there < 40 {
		t.Errorf("%d errors found: the search is wrong", there)
	}
	codes := regexp.MustCompile(`(?m)^\tExit\w+ += (\d+)`).FindAllStringSubmatch(read(t, "cli/errors.go"), -1)
	if len(codes) < 9 {
		t.Errorf("%d exit codes found in cli/errors.go: the search is wrong", len(codes))
	}
	for _, c := range codes {
		if !strings.Contains(doc, "\n| "+c[1]+" | ") {
			t.Errorf("docs/operations.md does not say what exit code %s means", c[1])
		}
	}
}

// TestReadme: the two commands, the quick start and the tables of the README are those of the code.
func TestReadme(t *testing.T) {
	doc := read(t, "README.md")
	// .ci/run takes its commands from the first sh block.
	if !strings.Contains(doc, "\n```sh\ngo run ./cmd/quorate demo\ngo test ./...\n```\n") {
		t.Error("README.md does not have the two commands: go run ./cmd/quorate demo and go test ./...")
	}
	// The quick start is a program that its own test runs.
	if !strings.Contains(doc, "\n```go\n"+read(t, "examples/quickstart/main.go")+"```\n") {
		t.Error("the quick start in README.md is not examples/quickstart/main.go, word for word")
	}
	for _, pkg := range packages(sources(t)) {
		if strings.HasPrefix(pkg, "internal/") || strings.HasPrefix(pkg, "cmd/") || example(pkg) || strings.HasPrefix(pkg, "proof/") {
			continue // nothing to import
		}
		if want := "| `" + strings.Replace(pkg, ".", "quorate", 1) + "` |"; !strings.Contains(doc, want) {
			t.Errorf("the table of packages in README.md does not have %s", pkg)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(doc, -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil && m[1] != "quorate" {
			t.Errorf("README.md lists a package %s, which does not exist", m[1])
		}
	}
	mod := read(t, "go.mod")
	version := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindStringSubmatch(mod)
	if version == nil || !strings.Contains(doc, "Go "+version[1]) {
		t.Errorf("README.md does not say that Go %v is needed", version)
	}
	if v := regexp.MustCompile(`MinServer = "([^"]+)"`).FindStringSubmatch(read(t, "internal/kv/api.go")); v == nil || !strings.Contains(doc, v[1]) {
		t.Errorf("README.md does not say that NATS server %v is needed", v)
	}
}

// TestImageBuildsWithoutRegistry: the image can be built of a binary that is there, without asking anybody for anything; it is static and not root, and
// nothing of the compose project is reachable from another machine.
func TestImageBuildsWithoutRegistry(t *testing.T) {
	docker := read(t, "Dockerfile")
	var stages []string
	for line := range strings.Lines(docker) {
		if from, ok := strings.CutPrefix(strings.TrimSpace(line), "FROM "); ok {
			stages = append(stages, from)
		}
	}
	if want := []string{"${GO_IMAGE} AS build", "scratch AS prebuilt", "${BINARY} AS binary", "scratch"}; !slices.Equal(stages, want) {
		t.Errorf("Dockerfile: stages %q, want %q", stages, want)
	}
	for _, want := range []string{
		"\nARG GO_IMAGE=golang:1.26-bookworm\n", "\nARG BINARY=build\n", "\nCOPY dist/quorate /quorate\n", "CGO_ENABLED=0", "\nUSER 65532:65532\n", `CMD ["/quorate", "check", "--ready"]`,
	} {
		if !strings.Contains(docker, want) {
			t.Errorf("Dockerfile: %q is not in it", want)
		}
	}
	compose := read(t, "compose.yaml")
	for _, not := range []string{"@sha256", "# syntax="} { // either asks a registry
		if strings.Contains(docker, not) || strings.Contains(compose, not) {
			t.Errorf("%s in Dockerfile or compose.yaml", not)
		}
	}
	if want := `BINARY: "${QUORATE_BINARY:-build}"`; !strings.Contains(compose, want) {
		t.Errorf("compose.yaml: %s is not in it", want)
	}
	for line := range strings.Lines(compose) {
		if ports, ok := strings.CutPrefix(strings.TrimSpace(line), "ports:"); ok && !strings.HasPrefix(strings.TrimSpace(ports), `["127.0.0.1:`) {
			t.Errorf("compose.yaml: published beyond this machine: %s", line)
		}
	}
}
