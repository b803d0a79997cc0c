// Command types checks that the packages of this module, all that they need, and the standard library fit together on other systems: go run .ci/types.go GOOS/GOARCH...
// It reads their sources, as the compiler does, and builds nothing: a tenth of the work, and what breaks on one system only is nearly always a name or a type.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// pkg is what go list says of a package.
type pkg struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string
	Module          *struct {
		Main      bool
		GoVersion string
	}
}

// importer gives one package those that it imports.
type importer struct {
	of  pkg
	all map[string]*types.Package
}

func (i importer) Import(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	if m, ok := i.of.ImportMap[path]; ok {
		path = m
	}
	if p := i.all[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("package %s is not there", path)
}

func main() {
	for _, target := range os.Args[1:] {
		n, err := check(target)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", target, err)
			os.Exit(1)
		}
		fmt.Printf("%s: %d packages\n", target, n)
	}
}

func check(target string) (n int, err error) {
	system, arch, ok := strings.Cut(target, "/")
	if !ok {
		return 0, errors.New("write GOOS/GOARCH")
	}
	list := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,Module", "./...")
	list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return 0, fmt.Errorf("go list: %w", err)
	}
	all := map[string]*types.Package{}
	var said []error
	in := json.NewDecoder(strings.NewReader(string(out)))
	for { // what others need comes before them
		var p pkg
		if err := in.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, err
		}
		if p.ImportPath == "unsafe" {
			continue
		}
		ours := p.Module != nil && p.Module.Main
		c := types.Config{Importer: importer{p, all}, IgnoreFuncBodies: !ours, FakeImportC: true, Sizes: types.SizesFor("gc", arch), Error: func(err error) {
			if said = append(said, err); len(said) <= 20 {
				fmt.Fprintln(os.Stderr, err)
			}
		}}
		if p.Module != nil && p.Module.GoVersion != "" {
			c.GoVersion = "go" + p.Module.GoVersion
		}
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return 0, err
			}
			files = append(files, f)
		}
		all[p.ImportPath], _ = c.Check(p.ImportPath, fset, files, nil)
		n++
	}
	if len(said) > 0 {
		return 0, fmt.Errorf("%d errors", len(said))
	}
	if n < 100 {
		return 0, fmt.Errorf("only %d packages", n)
	}
	return n, nil
}
