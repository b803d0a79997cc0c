package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// chooser is what says in each package which bug is planted.
const chooser = `package %s

import (
	"os"
	"path/filepath"
	"strings"
)

var planted__bug = func() string {
	program, _ := os.Executable()
	name, _, _ := strings.Cut(filepath.Base(program), ".")
	return name
}()
`

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) < 2 {
		return errors.New("usage: planted TREE PATCH [PATCH...]")
	}
	m := mux{tree: args[0], files: map[string]*file{}}
	for _, p := range args[1:] {
		name := strings.TrimSuffix(filepath.Base(p), ".patch")
		fits, err := m.add(name, p)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if fits {
			if _, err := fmt.Fprintln(out, name); err != nil {
				return err
			}
		}
	}
	return m.write()
}

// A mux collects the patched functions of a tree.
type mux struct {
	tree  string
	files map[string]*file // by path in the tree
}

// A file is one that a patch changes.
type file struct {
	source
	variants map[string][]variant // by key of the function
}

// A variant is a function as a patch has it.
type variant struct{ bug, text string }

// source is a file's text with its declarations.
type source struct {
	text  string
	ast   *ast.File
	fset  *token.FileSet
	funcs map[string]*ast.FuncDecl // by receiver and name
	rest  string                   // everything else, comments left out
}

func read(path string) (source, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return source{}, err
	}
	s := source{text: string(b), fset: token.NewFileSet(), funcs: map[string]*ast.FuncDecl{}}
	if s.ast, err = parser.ParseFile(s.fset, path, b, parser.SkipObjectResolution); err != nil {
		return source{}, err
	}
	rest := []string{s.ast.Name.Name}
	for _, d := range s.ast.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			s.funcs[s.key(f)] = f
		} else {
			rest = append(rest, s.of(d))
		}
	}
	s.rest = strings.Join(rest, "\n")
	return s, nil
}

// of is the text of a node, without the comment above it.
func (s source) of(n ast.Node) string {
	return s.text[s.fset.Position(n.Pos()).Offset:s.fset.Position(n.End()).Offset]
}

func (s source) key(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	return s.of(f.Recv.List[0].Type) + "." + f.Name.Name
}

// declared is the function without the comment above it, under another name.
func (s source) declared(f *ast.FuncDecl, name string) string {
	from := s.fset.Position(f.Type.Pos()).Offset
	at := s.fset.Position(f.Name.Pos()).Offset
	return s.text[from:at] + name + s.text[at+len(f.Name.Name):s.fset.Position(f.End()).Offset]
}

// signature is what callers see of the function.
func (s source) signature(f *ast.FuncDecl) string {
	text := s.of(f.Type)
	if f.Recv != nil {
		text += " " + s.of(f.Recv)
	}
	return text
}

// add takes up the functions that a patch changes; false if it changes more, or does not apply.
func (m *mux) add(bug, patch string) (bool, error) {
	text, err := os.ReadFile(patch)
	if err != nil {
		return false, err
	}
	work, err := os.MkdirTemp("", "planted")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(work) }() // in the system's directory for such
	var paths []string
	for line := range strings.Lines(string(text)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "+++ b/")
		if !ok {
			continue
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return false, nil
		}
		b, err := os.ReadFile(filepath.Join(m.tree, path))
		if err != nil {
			return false, nil // a new file, or none of this tree: whoever plants it alone says so
		}
		to := filepath.Join(work, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, b, 0o600)); err != nil {
			return false, err
		}
		paths = append(paths, path)
	}
	cmd := exec.Command("patch", "-p1", "-s", "-f", "--no-backup-if-mismatch")
	cmd.Dir, cmd.Stdin = work, strings.NewReader(string(text))
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			return false, err // no such command
		}
		return false, nil
	}
	found := map[string]map[string]variant{} // by path and function
	for _, path := range paths {
		f := m.files[path]
		if f == nil {
			s, err := read(filepath.Join(m.tree, path))
			if err != nil {
				return false, err
			}
			f = &file{s, map[string][]variant{}}
			m.files[path] = f
		}
		patched, err := read(filepath.Join(work, path))
		if err != nil {
			return false, nil // it does not compile
		}
		if found[path] = f.differ(patched, bug); found[path] == nil {
			return false, nil
		}
	}
	for path, vs := range found {
		for key, v := range vs {
			m.files[path].variants[key] = append(m.files[path].variants[key], v)
		}
	}
	return len(found) > 0, nil
}

// differ gives the functions that differ in a patched file; nil if more than functions does, or one that cannot be called through another.
func (f *file) differ(patched source, bug string) map[string]variant {
	if f.rest != patched.rest || len(f.funcs) != len(patched.funcs) {
		return nil
	}
	vs := map[string]variant{}
	for key, was := range f.funcs {
		is := patched.funcs[key]
		switch {
		case is == nil:
			return nil
		case f.of(was) == patched.of(is):
		case f.signature(was) != patched.signature(is), was.Body == nil, was.Type.TypeParams != nil, was.Name.Name == "init", was.Name.Name == "main",
			strings.Contains(f.of(was.Body), "recover("): // it recovers only who calls it itself
			return nil
		default:
			vs[key] = variant{bug, patched.declared(is, rename(was.Name.Name, bug))}
		}
	}
	return vs
}

// rename is what a function is called with the bug in it.
func rename(name, bug string) string {
	return name + "__" + strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, bug)
}

// write rewrites the files.
func (m *mux) write() error {
	packages := map[string]string{}
	for path, f := range m.files {
		if len(f.variants) == 0 {
			continue
		}
		packages[filepath.Dir(path)] = f.ast.Name.Name
		if err := os.WriteFile(filepath.Join(m.tree, path), []byte(f.muxed()), 0o600); err != nil {
			return err
		}
	}
	for dir, name := range packages {
		if err := os.WriteFile(filepath.Join(m.tree, dir, "planted_bug.go"), fmt.Appendf(nil, chooser, name), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// muxed is the file's text: each function that has variants under another name, behind it the variants and one that chooses.
func (f *file) muxed() string {
	keys := make([]string, 0, len(f.variants))
	for key := range f.variants {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(f.funcs[b].Pos(), f.funcs[a].Pos()) }) // from the end
	text, more := f.text, ""
	for _, key := range keys {
		was := f.funcs[key]
		name := was.Name.Name
		none := name + "__none"
		at := f.fset.Position(was.Name.Pos()).Offset
		text = text[:at] + none + text[at+len(name):]
		args, params := f.arguments(was)
		call := func(to string) string {
			if was.Recv != nil {
				to = "x__." + to
			}
			s := to + "(" + args + ")"
			if was.Type.Results != nil {
				return "return " + s
			}
			return s + "; return"
		}
		recv, results := "", ""
		if was.Recv != nil {
			recv = "(x__ " + f.of(was.Recv.List[0].Type) + ") "
		}
		if r := was.Type.Results; r != nil {
			results = " " + f.of(r)
		}
		more += "\nfunc " + recv + name + "(" + params + ")" + results + " {\n\tswitch planted__bug {\n"
		for _, v := range f.variants[key] {
			more += fmt.Sprintf("\tcase %q:\n\t\t%s\n", v.bug, call(rename(name, v.bug)))
		}
		more += "\t}\n\t" + call(none) + "\n}\n"
		for _, v := range f.variants[key] {
			more += "\n" + v.text + "\n"
		}
	}
	return text + more
}

// arguments are the parameters of a function, all with names, and how they are handed on.
func (f *file) arguments(d *ast.FuncDecl) (args, params string) {
	var as, ps []string
	for _, p := range d.Type.Params.List {
		for range max(1, len(p.Names)) {
			name := fmt.Sprintf("p__%d", len(ps))
			ps = append(ps, name+" "+f.of(p.Type))
			if _, variadic := p.Type.(*ast.Ellipsis); variadic {
				name += "..."
			}
			as = append(as, name)
		}
	}
	return strings.Join(as, ", "), strings.Join(ps, ", ")
}
