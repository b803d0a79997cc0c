package cli

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
)

// Every order of the same words gives the same result: flags with their values may stand anywhere, before the command
// too; positionals keep their order.
func TestWordOrder(t *testing.T) {
	table := append(commands(), probe(nil), probeRest())
	app := appFlags()
	optional := [][]string{
		{"--server", "nats://x"}, {"--server=nats://x"}, {"-s", "nats://x"}, {"-s=nats://x"},
		{"-N", "ns"}, {"-j"}, {"--json"}, {"--output=json"}, {"--tlsfirst"}, {"--tlsfirst=false"}, {"--lease", "1s"},
		{"--id", "a"}, {"--id=a"}, {"--id", ""}, {"--id=--x"}, {"--observer"}, {"--grace", "2s"}, {"-g", "2s"}, {"-g=2s"},
		{"--members", "3"}, {"--vote=yes"}, {"--id", "-"}, {"--password=-=x="},
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 3000 {
		exec := r.IntN(2) == 0
		positionals := []string{"probe", "grp", "more", "probe", "id"}
		var after []string
		if exec {
			positionals = []string{"exec", "grp"}
			after = []string{"--", "ls", "-l", "--server", "--", "x"}
		} else if r.IntN(2) == 0 {
			after = []string{"--", "-x", "--id", "--"}
		}
		// A few flags, each setting once; --meta any number of times, which keep their order.
		var flags [][]string
		used := map[string]bool{}
		for _, i := range r.Perm(len(optional))[:r.IntN(8)] {
			f := optional[i]
			spec, global := lookup(strings.SplitN(f[0], "=", 2)[0], app, table)
			own := find(table, positionals[0]).flag(spec.name) != nil
			name := spec.name
			if name == "output" {
				name = "json"
			}
			if used[name] || !global && !own {
				continue
			}
			used[name] = true
			flags = append(flags, f)
		}
		var metas [][]string
		if !exec {
			for i := range r.IntN(3) {
				metas = append(metas, [][]string{{"--meta", fmt.Sprint("k=", i)}, {fmt.Sprint("--meta=k=", i)}}[r.IntN(2)])
			}
		}
		arrange := func() []string {
			// Three kinds of pieces: free ones, and two sequences that keep their order.
			var kinds []int
			for range flags {
				kinds = append(kinds, 0)
			}
			for range positionals {
				kinds = append(kinds, 1)
			}
			for range metas {
				kinds = append(kinds, 2)
			}
			r.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
			free := r.Perm(len(flags))
			var p, m int
			var words []string
			for _, k := range kinds {
				switch k {
				case 0:
					words = append(words, flags[free[0]]...)
					free = free[1:]
				case 1:
					words = append(words, positionals[p])
					p++
				case 2:
					words = append(words, metas[m]...)
					m++
				}
			}
			return append(words, after...)
		}
		first := arrange()
		want, err := order(first, app, table)
		if err != nil {
			t.Fatalf("order(%q): %v", first, err)
		}
		for range 4 {
			words := arrange()
			got, err := order(words, app, table)
			if err != nil {
				t.Fatalf("order(%q): %v", words, err)
			}
			if !reflect.DeepEqual(canonical(got), canonical(want)) {
				t.Fatalf("order(%q)\n= %q\nbut order(%q)\n= %q", words, canonical(got), first, canonical(want))
			}
		}
		if exec && !slices.Equal(want.after, after[1:]) {
			t.Fatalf("order(%q).after = %q, want %q", first, want.after, after[1:])
		}
	}
}

// canonical is what urfave/cli gets, the flags sorted (their order means nothing but within a list), and what is
// carried beside.
func canonical(o *ordered) []string {
	w := o.words()
	end := slices.Index(w, "--")
	sort.Strings(w[1 : 1+len(o.global)])
	own := w[2+len(o.global) : end]
	sort.SliceStable(own, func(i, j int) bool { // a list keeps its order
		a, _, _ := strings.Cut(own[i], "=")
		b, _, _ := strings.Cut(own[j], "=")
		return a < b
	})
	return append(append(w, "beside"), o.after...)
}

// order never panics, and what it lets through has a command with the right number of arguments.
func FuzzOrder(f *testing.F) {
	f.Add("probe g --id x -- y")
	f.Add("--server --id = -= --= - -- --")
	f.Add("exec\x00g -- a")
	table := append(commands(), probe(nil), probeRest())
	app := appFlags()
	f.Fuzz(func(t *testing.T, line string) {
		o, err := order(strings.Split(line, " "), app, table)
		if err != nil {
			if exitCode(err) != ExitUsage || strings.Contains(oneLine(err.Error()), "\n") {
				t.Errorf("%q: code %d, %q", line, exitCode(err), err)
			}
			return
		}
		if !o.help && !o.version && o.cmd == nil {
			t.Errorf("%q: no command and no error", line)
		}
	})
}
