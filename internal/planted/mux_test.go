package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const program = `package main

import (
	"errors"
	"fmt"
)

const base = 10

type counter struct{ n int }

// Add adds.
func (c *counter) Add(what string, by ...int) (int, error) {
	for _, n := range by {
		c.n += n
	}
	if what == "" {
		return 0, errors.New("what")
	}
	return c.n, nil
}

func (counter) name(_ string, _, _ int) string { return "counter" }

func (c *counter) clear() {
	c.n = 0
}

func safe(f func()) (err error) {
	defer func() { err, _ = recover().(error) }()
	f()
	return nil
}

func main() {
	c := counter{base}
	n, err := c.Add("x", 1, 2)
	_, bad := c.Add("")
	fmt.Print(n, err, bad, c.name("", 0, 0), safe(func() {}))
	c.clear()
	fmt.Println(c.n)
}
`

// The bugs, by what they replace, and what the program prints with each; "" for one that cannot be chosen at run time.
var bugs = []struct{ name, was, is, prints string }{
	{"X1-twice", "c.n += n", "c.n += 2 * n", "16<nil>whatcounter<nil>0"},
	{"X1-same-function", "if what == \"\" {", "if what != \"\" {", "0what<nil>counter<nil>0"},
	{"X1-unnamed", "return \"counter\"", "return \"bug\"", "13<nil>whatbug<nil>0"},
	{"X1-nothing-returned", "\tc.n = 0", "\tc.n = 1", "13<nil>whatcounter<nil>1"},
	{"X1-two-functions", "c.n += n|return \"counter\"", "c.n -= n|return \"both\"", "7<nil>whatboth<nil>0"},
	{"X2-constant", "base = 10", "base = 11", ""},
	{"X2-type", "n int }", "n int; more bool }", ""},
	{"X2-parameters", "name(_ string, _, _ int)", "name(_ string, _ ...int)", ""},
	{"X2-recovers", "f()\n\treturn nil", "f()\n\treturn errors.New(\"x\")", ""},
	{"X2-main", "c.clear()", "", ""},
	{"X2-does-not-apply", "", "", ""},
}

// Every bug that is put into the tree is there when the program has its name, and only then.
func TestMux(t *testing.T) {
	dir := t.TempDir()
	tree, patches := filepath.Join(dir, "tree"), filepath.Join(dir, "patches")
	write := func(path, text string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(filepath.Join(tree, "go.mod"), "module example.org/m\n\ngo 1.26\n")
	write(filepath.Join(tree, "m", "main.go"), program)
	args, want := []string{tree}, ""
	for _, b := range bugs {
		text, is := program, strings.Split(b.is, "|")
		for i, was := range strings.Split(b.was, "|") {
			if was != "" && !strings.Contains(text, was) {
				t.Fatalf("%s: %q is not in the program", b.name, was)
			}
			text = strings.Replace(text, was, is[i], 1)
		}
		diff := exec.Command("diff", "-U1", "--label", "a/m/main.go", "--label", "b/m/main.go", "-", write(filepath.Join(dir, "patched"), text))
		diff.Stdin = strings.NewReader(program)
		out, _ := diff.Output() // 1: they differ
		if b.name == "X2-does-not-apply" {
			out = []byte("--- a/m/main.go\n+++ b/m/main.go\n@@ -1,2 +1,2 @@\n-nothing like that\n+is there\n nor that\n")
		}
		args = append(args, write(filepath.Join(patches, b.name+".patch"), "# a header\n"+string(out)))
		if b.prints != "" {
			want += b.name + "\n"
		}
	}
	var out bytes.Buffer
	if err := run(args, &out); err != nil || out.String() != want {
		t.Fatalf("put in: %q, %v; want %q", out.String(), err, want)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "program"), "./m")
	build.Dir = tree
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check := func(name, want string) {
		t.Helper()
		to := filepath.Join(dir, name+".test")
		if err := os.Link(filepath.Join(dir, "program"), to); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(to).CombinedOutput()
		if err != nil || strings.Join(strings.Fields(string(out)), "") != want {
			t.Errorf("%s: prints %q, %v; want %q", name, out, err, want)
		}
	}
	for _, b := range bugs {
		if b.prints != "" {
			check(b.name, b.prints)
		}
	}
	check("none", "13<nil>whatcounter<nil>0")
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"tree"}, {t.TempDir(), "no-such.patch"}} {
		if err := run(args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
