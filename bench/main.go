package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// all is the table of benchmarks, in the order of the report. A new one is a file of its own and a line here; its roles
// for child processes are in [roles].
var all = []benchmark{
	{"acquire", "an uncontended leadership", acquire},
	{"handover", "a leader resigns, the next in the queue leads", handOver},
	{"cluster", "three servers: their start, an acquire, a hand-over", cluster},
	{"coldstart", "the command, from its start to being a member", coldStart},
	{"failover", "a leader's process is killed, a candidate leads", failOver},
	{"crash", "a member's process is killed, all others know it", crash},
	{"storm", "many members join at once, until each sees all", storm},
	{"settled", "many members join at once, until each has its share", settleAll},
	{"pause", "a member joins or leaves, the work of the others stops for a moment", pause},
	{"reassign", "a member's process is killed, its share is others'", reassign},
	{"polls", "what a gateway for bloc's clients answers in a second", polls},
	{"heartbeats", "what one leader answers in a second", heartbeats},
	{"idle", "processor time of members that do nothing", idle},
	{"votes", "a ballot, from its proposal to its sealed verdict", votes},
	{"actions", "how far apart processes begin what they agreed on", actions},
	{"elections", "many elections held by one process", elections},
}

// A benchmark measures one thing on both sides, by turns, and returns rows of the report.
type benchmark struct {
	name, about string
	run         func(ctx context.Context, b *bench) ([]Row, error)
}

func main() {
	if inChild() {
		os.Exit(child())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(progress)
	pattern := f.String("run", "", "run only the benchmarks whose name matches this `regexp`")
	quick := f.Bool("quick", false, "fewer and shorter repetitions: within two minutes")
	asJSON := f.Bool("json", false, "print JSON")
	asMarkdown := f.Bool("markdown", false, "print the tables of docs/benchmarks.md")
	update := f.String("update", "", "put the tables into this `file`, between its two marks, instead of printing")
	dir := f.String("dir", "", "`directory` for the servers' data, on the disk to be measured (default: a new one for temporary files)")
	profiles := f.String("profile", "", "`directory` for processor profiles, one of each process")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("argument %q: there are only flags, see -help", f.Arg(0))
	}
	re, err := regexp.Compile(*pattern)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	b := &bench{scale: full, progress: progress, profiles: *profiles}
	if *quick {
		b.scale = quickly
	}
	report, failed := b.measure(ctx, *dir, re)
	if report == nil {
		return failed
	}
	switch { // what could be measured is worth having
	case *update != "" && failed == nil:
		err = report.update(*update)
	case *asJSON:
		err = report.json(out)
	case *asMarkdown:
		err = report.markdown(out)
	default:
		err = report.text(out)
	}
	return errors.Join(failed, err)
}

// measure runs the benchmarks whose names match, each with servers of its own in a directory of its own. One that fails does
// not hide the others.
func (b *bench) measure(ctx context.Context, dir string, re *regexp.Regexp) (*Report, error) {
	if !slices.ContainsFunc(all, func(m benchmark) bool { return re.MatchString(m.name) }) {
		names := make([]string, len(all))
		for i, m := range all {
			names[i] = m.name
		}
		return nil, fmt.Errorf("-run %q matches none of %s", re, strings.Join(names, ", "))
	}
	tmp, err := os.MkdirTemp(dir, "quorate-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // what stays is the system's to clear
	report := &Report{Machine: machine(), Scale: b.scale.String(), Rows: []Row{}}
	began := time.Now()
	var failed []error
	for _, m := range all {
		if !re.MatchString(m.name) {
			continue
		}
		at := time.Now()
		b.say("%s: %s ... ", m.name, m.about)
		rows, err := b.one(ctx, m, tmp)
		if err != nil {
			b.say("failed\n")
			failed = append(failed, fmt.Errorf("%s: %w", m.name, cmp.Or(context.Cause(ctx), err)))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		for i := range rows {
			rows[i].Bench = m.name
		}
		report.Rows = append(report.Rows, rows...)
		b.say("%.0f s\n", time.Since(at).Seconds())
	}
	report.Seconds = time.Since(began).Seconds()
	return report, errors.Join(failed...)
}

// one runs one benchmark; whatever it has started has ended when it returns.
func (b *bench) one(ctx context.Context, m benchmark, tmp string) ([]Row, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute) // far above what any of them takes: a hang is an error
	defer cancel()
	c := *b
	var err error
	if c.dir, err = os.MkdirTemp(tmp, m.name+"-"); err != nil {
		return nil, err
	}
	c.name = m.name
	c.children = &children{}
	defer c.children.end()
	return m.run(ctx, &c)
}
