package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/quorate/quorate"

// root of the repository, as seen from this package's folder.
const root = "../.."

// A source is one Go file. All build tags count: a rule holds on every platform.
type source struct {
	path string // from the root, with slashes: "leader/run.go"
	pkg  string // its folder: "leader"; "." is the root
	test bool
	text string
	file *ast.File
	fset *token.FileSet
}

func (s *source) line(p token.Pos) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(p).Line)
}

// imports lists what the file imports, those of this module relative to it ("." is the root package).
func (s *source) imports() []string {
	var l []string
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue // does not compile either
		}
		if p == module {
			p = module + "/."
		}
		l = append(l, p)
	}
	return l
}

// own returns the folder of an import of this module.
func own(path string) (string, bool) { return strings.CutPrefix(path, module+"/") }

// sources gives every Go file of this module.
func sources(t *testing.T) []*source {
	t.Helper()
	l, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(l) < 50 {
		t.Fatalf("%d Go files found below %s: the walk is wrong", len(l), root)
	}
	return l
}

// parsed reads the files once for all tests. Folders with a go.mod of their own are other modules.
var parsed = sync.OnceValues(func() ([]*source, error) {
	var l []*source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		if d.IsDir() {
			if path == root {
				return nil
			}
			if strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s := &source{path: rel, pkg: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"), text: string(text), fset: token.NewFileSet()}
		s.file, err = parser.ParseFile(s.fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		l = append(l, s)
		return nil
	})
	return l, err
})

func packages(l []*source) []string {
	var p []string
	for _, s := range l {
		if !slices.Contains(p, s.pkg) {
			p = append(p, s.pkg)
		}
	}
	return p
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
