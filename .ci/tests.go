package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type test struct{ pkg, name string }

// detectorDied says whether the race detector's runtime ended the process for a reason of its own.
func detectorDied(line string) bool {
	return strings.Contains(line, "ThreadSanitizer: CHECK failed") || strings.TrimSpace(line) == "SIGSEGV: segmentation violation"
}

// mostLines of what a failed test said are shown, the last ones.
const mostLines = 60

func main() {
	again := flag.String("again", "", "file for the packages in which the race detector itself died")
	flag.Parse()
	said := map[test]*strings.Builder{}
	var slow []event
	var failed, skipped []test
	lines := map[string]string{} // of packages
	died := map[string]bool{}
	running := map[test]bool{}
	ran := map[string]int{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // go itself speaking
			continue
		}
		k := test{e.Package, e.Test}
		switch e.Action {
		case "run":
			running[k] = true
		case "build-output":
			fmt.Print(e.Output)
		case "output":
			if detectorDied(e.Output) {
				died[e.Package] = true
			}
			switch o := e.Output; {
			case e.Test == "" && (strings.HasPrefix(o, "ok ") || strings.HasPrefix(o, "FAIL\t") || strings.HasPrefix(o, "?")):
				lines[e.Package] = o
			default:
				if said[k] == nil {
					said[k] = &strings.Builder{}
				}
				said[k].WriteString(o)
			}
		case "pass", "fail", "skip":
			delete(running, k)
			if e.Test == "" {
				if e.Action == "fail" {
					failed = append(failed, k)
				}
				continue
			}
			ran[e.Package]++
			slow = append(slow, e)
			switch e.Action {
			case "fail":
				failed = append(failed, k)
			case "skip":
				skipped = append(skipped, k)
			}
		}
	}
	if err := in.Err(); err != nil {
		fmt.Println("tests: read the events of go test:", err)
		os.Exit(1)
	}
	total := 0
	for pkg, n := range ran {
		total += n
		if lines[pkg] == "" {
			fmt.Println("did not come to its end:", pkg)
			failed = append(failed, test{pkg, ""})
		}
	}
	for _, k := range skipped {
		fmt.Printf("skipped: %s %s\n", k.pkg, k.name)
	}
	slices.SortFunc(slow, func(a, b event) int { return -cmp.Compare(a.Elapsed, b.Elapsed) })
	for _, e := range slow[:min(5, len(slow))] {
		fmt.Printf("slow: %s %s %.1f s\n", e.Package, e.Test, e.Elapsed)
	}
	names := make([]string, 0, len(lines))
	for p := range lines {
		names = append(names, p)
	}
	slices.Sort(names)
	for _, p := range names {
		fmt.Print(lines[p])
	}
	for k := range running { // the process ended in the midst of it: what it said last is why
		failed = append(failed, k)
	}
	// What went wrong comes last: it is what is seen of a long output.
	real := 0
	for _, k := range failed {
		if died[k.pkg] {
			continue
		}
		real++
		if s := said[k]; s != nil {
			all := strings.Split(strings.TrimSuffix(s.String(), "\n"), "\n")
			if n := len(all) - mostLines; n > 0 {
				all = append([]string{fmt.Sprintf("(%d lines more)", n)}, all[n:]...)
			}
			fmt.Printf("--- %s %s\n%s\n", k.pkg, k.name, strings.Join(all, "\n"))
		}
	}
	for p := range died {
		fmt.Printf("the race detector's own runtime died: %s is to be run again\n", p)
	}
	fmt.Printf("%d tests ran in %d packages: %d failed, %d skipped\n", total, len(ran), real, len(skipped))
	switch {
	case total == 0 || real+len(skipped) > 0:
		os.Exit(1)
	case len(died) == 0:
	case *again == "":
		os.Exit(1)
	default:
		var list strings.Builder
		for p := range died {
			list.WriteString(p + "\n")
		}
		if err := os.WriteFile(*again, []byte(list.String()), 0o600); err != nil {
			fmt.Println("tests:", err)
			os.Exit(1)
		}
		os.Exit(3)
	}
}
