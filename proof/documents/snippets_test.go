//go:build docs

package documents

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
)

// importable is what Go in the documents may use without saying where it is from, by name.
var importable = map[string]string{
	"context": "context", "errors": "errors", "fmt": "fmt", "slog": "log/slog", "log": "log", "os": "os", "time": "time", "http": "net/http", "sql": "database/sql",
	"nats": "github.com/nats-io/nats.go", "jetstream": "github.com/nats-io/nats.go/jetstream",
	"quorate": module, "leader": module + "/leader", "coord": module + "/coord", "partition": module + "/partition", "vote": module + "/vote",
	"fence": module + "/fence", "embedded": module + "/embedded",
}

// TestSnippets compiles the Go of the documents that is no file of its own: functions as they stand, statements within one.
func TestSnippets(t *testing.T) {
	dir := t.TempDir()
	tree, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	// A module beside ours, with what ours needs.
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(mod), "module "+module+"\n", "module documents\n", 1) +
		"\nrequire " + module + " v0.0.0-00010101000000-000000000000\nreplace " + module + " => " + tree + "\n"
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"go.mod": []byte(text), "go.sum": sum} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	guides, err := filepath.Glob(filepath.Join(root, "docs", "guides", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	name, comment := regexp.MustCompile(`\b([a-z]+)\.[A-Z]`), regexp.MustCompile(`//.*`)
	n := 0
	for _, page := range append(pages, guides...) {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		l, err := blocks(filepath.Base(page), string(data))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range l {
			if b.lang != "go" || b.info != "" {
				continue
			}
			n++
			used := map[string]bool{"context": true, "nats": true, "quorate": true, "coord": true} // the parameters of a function of statements
			for _, m := range name.FindAllStringSubmatch(comment.ReplaceAllString(b.text, ""), -1) {
				if importable[m[1]] != "" {
					used[m[1]] = true
				}
			}
			var src bytes.Buffer
			fmt.Fprint(&src, "package p\n\nimport (\n")
			var names []string
			for u := range used {
				names = append(names, u)
			}
			sort.Strings(names)
			for _, u := range names {
				fmt.Fprintf(&src, "\t%q\n", importable[u])
			}
			fmt.Fprint(&src, ")\n\ntype (\n\t_ context.Context\n\t_ *nats.Conn\n\t_ *quorate.Namespace\n\t_ *coord.Group\n)\n\n")
			where := fmt.Sprintf("//line %s:%d\n", b.page, b.line+1)
			if regexp.MustCompile(`(?m)^(func|type|var|const) `).MatchString(b.text) {
				fmt.Fprint(&src, where, b.text)
			} else {
				fmt.Fprint(&src, "func _(ctx context.Context, nc *nats.Conn, ns *quorate.Namespace, c *coord.Client, g *coord.Group) error {\n", where, b.text, "\treturn nil\n}\n")
			}
			pkg := filepath.Join(dir, fmt.Sprintf("p%d", n))
			if err := os.Mkdir(pkg, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(pkg, "p.go"), src.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n < 8 {
		t.Fatalf("%d pieces of Go found: the search is wrong", n)
	}
	cmd := exec.Command("go", "build", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("Go in the documents does not compile: %v\n%s", err, out)
	}
	t.Logf("%d pieces of Go compiled", n)
}
