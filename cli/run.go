package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/guardian"
	"github.com/quorate/quorate/internal/guardian/deadline"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
)

// Pauses before CMD is started once more under the same right: doubled each time, begun anew when it ran for longer than the longest.
const (
	restartFirst = time.Second
	restartMost  = 30 * time.Second
)

// runVariables are what CMD is told; those of a `run` around this one are not handed on.
var runVariables = []string{"QUORATE_GROUP", "QUORATE_ELECTION", "QUORATE_MEMBER", "QUORATE_TOKEN", "QUORATE_INDEX", "QUORATE_TOTAL", "QUORATE_GENERATION", "QUORATE_BUCKETS", "QUORATE_RUN"}

func runCommand() *command {
	return &command{
		name:    "run",
		section: sectionTake,
		summary: "run a command only while leader, or only while assigned",
		about: "Becomes a member of the group (or a candidate of a plain election), and runs CMD while it leads: on one machine of many at a time. With --assign it runs CMD " +
			"on every member, each with its own share of the work. CMD is started when the right begins, and ended before it ends: its whole process group, and on Linux all that it has " +
			"started wherever that went. The leadership is released when all of it has ended, and not before.\n\n" +
			"CMD's environment has QUORATE_GROUP (or QUORATE_ELECTION), QUORATE_MEMBER and QUORATE_TOKEN, the fencing token; with --assign also QUORATE_INDEX (from 0), QUORATE_TOTAL and " +
			"QUORATE_GENERATION, and QUORATE_BUCKETS (2,5,9) if the group's work is cut into buckets.\n\n" +
			"CMD is told to end (TERM) at once when the right is given up or taken back (step-down, a new generation, INT or TERM to quorate), and killed after --grace. " +
			"When the lease is not renewed, as NATS is away or quorate is stopped, it gets TERM half a lease after the last renewal, and KILL just before the lease " +
			"runs out, so that nobody else's CMD runs at the same time. A small guardian process between quorate and CMD sees to it, also when quorate itself is killed or stopped.\n\n" +
			"HUP, QUIT, USR1 and USR2 are handed on to CMD; while there is none, HUP and QUIT end the waiting, as INT and TERM do. CMD does not read from the terminal: its standard input is quorate's own, " +
			"or empty if that is a terminal.\n\n" +
			"With --restart lost, the default, CMD is run again when the right has come back; when it ends by itself, quorate ends with its exit code. With always it is started again " +
			"whenever it ends, after a pause of 1 s, doubled each time up to 30 s. With no it is run once.\n\n" +
			"A CMD that ends gives the leadership up, and the next machine in the queue runs its own: a job that is to run once for all belongs behind a token, or into 'quorate leader' and a timer, " +
			"not into run on each machine (docs/guides/replace-a-cron-leader.md).",
		args: []argSpec{{name: "GROUP", unless: "election"}},
		rest: "CMD...",
		flags: append([]flagSpec{
			{name: "leader", kind: kindBool, usage: "run CMD while this member leads (the default)"},
			{name: "assign", kind: kindBool, usage: "run CMD while this member has a share of the work"},
			{name: "grace", kind: kindDuration, value: "D", def: "5s", usage: "how long CMD may take to end when it is told to; less if the right ends before"},
			{name: "restart", value: "WHEN", def: "lost", choices: []string{"lost", "always", "no"}, usage: "when CMD is started again: lost, always or no"},
			idFlag(),
			metaFlag(),
			minSizeFlag(),
			electionFlag(),
		}, monitorFlags()...),
		needs:  needServer,
		runsOn: true,
		examples: []example{
			{"quorate run consumer -- ./consume --all", "on each of several machines: it runs on one of them, and on another when that one is gone"},
			{"quorate run workers --assign -- sh -c './work --shard $QUORATE_INDEX'", "each member runs its share"},
			{"quorate run --election scheduler --restart always --grace 30s -- ./scheduler", "keep a scheduler running somewhere"},
			{"quorate run reports --restart no -- ./import.sh", "once at most on this machine, also when the leadership is lost meanwhile"},
		},
		exits: []exitSpec{
			{0, "CMD ended with 0"},
			{ExitRunFailed, "quorate failed; also: evicted, or the id is another process's"},
			{ExitCannotRun, "CMD cannot be run"},
			{ExitNotFound, "CMD was not found"},
			{128, "and more: 128+n for the signal n that ended CMD, or that ended the waiting for the right"},
		},
		run: runRun,
	}
}

func runRun(ctx context.Context, c *call) error {
	r, err := c.newGuarded()
	if err != nil {
		return err
	}
	err = r.run(ctx)
	if code := exitCode(err); code != ExitFailed && code != ExitUnanswered {
		return err
	}
	// What quorate has to say must be told from what CMD says.
	return &exitError{code: ExitRunFailed, text: err.Error(), err: err}
}

// guarded is one `run`.
type guarded struct {
	c       *call
	m       *member // nil for a plain election
	id      string
	what    string // the group or election, for messages
	assign  bool
	grace   time.Duration
	restart string
	path    string // of CMD

	ctx  context.Context // ends with an interrupt, or when run is over
	stop context.CancelCauseFunc

	mu    sync.Mutex
	guard *guardian.Guard // of the CMD that runs
	ended bool            // run is over, with err
	err   error
}

// newGuarded reads words and flags, and looks for CMD: whatever is wrong with them is said before anything is connected.
func (c *call) newGuarded() (*guarded, error) {
	r := &guarded{c: c, assign: c.bool("assign"), grace: c.duration("grace"), restart: c.str("restart")}
	for _, pair := range [][2]string{{"leader", "assign"}, {"election", "assign"}, {"election", "meta"}, {"election", "min-size"}} {
		if c.isSet(pair[0]) && c.isSet(pair[1]) {
			return nil, usageError("run: --%s and --%s: leave one out", pair[0], pair[1])
		}
	}
	if c.g.json {
		return nil, usageError("run: standard output is CMD's own, and never JSON of quorate's: leave out --json")
	}
	var err error
	if c.isSet("election") {
		r.what = "election " + c.str("election")
		if err := wire.CheckElection(c.str("election")); err != nil {
			return nil, err
		}
		if r.id, err = c.ownID(); err != nil {
			return nil, err
		}
	} else {
		if r.m, err = c.plainMember(); err != nil {
			return nil, err
		}
		r.what, r.id = "group "+r.m.group, r.m.cfg.ID
	}
	r.path, err = lookCommand(c.after[0], c.env["PATH"])
	return r, err
}

// lookCommand finds a program as a shell does, and says the exit code if there is none.
func lookCommand(name, path string) (string, error) {
	var denied error
	try := func(file string) bool {
		st, err := os.Stat(file)
		switch {
		case err != nil:
			return false
		case st.IsDir():
			denied = errors.New("it is a directory")
		case st.Mode()&0o111 == 0:
			denied = fs.ErrPermission
		default:
			return true
		}
		return false
	}
	if strings.ContainsRune(name, '/') {
		if try(name) {
			return name, nil
		}
	} else if name != "" {
		for _, dir := range filepath.SplitList(path) {
			if file := filepath.Join(dir, name); try(file) {
				if !filepath.IsAbs(file) {
					file = "./" + file
				}
				return file, nil
			}
		}
	}
	if denied != nil {
		return "", failure(ExitCannotRun, "run: %s cannot be run: %w", name, denied)
	}
	return "", failure(ExitNotFound, "run: %s: no such command", name)
}

func (r *guarded) run(ctx context.Context) error {
	unwatch, err := r.c.monitor(ctx, false)
	if err != nil {
		return err
	}
	defer unwatch()
	r.ctx, r.stop = context.WithCancelCause(ctx)
	defer r.stop(nil)
	defer r.forward()()
	c := r.c
	// The lease goes on being renewed for as long as CMD may take to end.
	s, err := c.sessionWith(r.ctx, quorate.Timings{Grace: max(c.g.lease, r.grace+2*time.Second)})
	if err != nil {
		if r.ctx.Err() != nil {
			return r.outcome()
		}
		return err
	}
	if r.m == nil {
		err = r.campaign(s)
	} else {
		err = r.takePart(s)
	}
	err = s.end(r.ctx, err)
	if out := r.outcome(); out != nil || err == nil {
		return out
	}
	return err
}

// outcome is how run ends: with CMD's exit code, or with that of the signal that ended it before there was any.
func (r *guarded) outcome() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ended:
		return r.err
	case r.ctx.Err() != nil:
		return silent(signalCode(context.Cause(r.ctx)))
	}
	return nil
}

// finish ends run.
func (r *guarded) finish(err error) {
	r.mu.Lock()
	if !r.ended {
		r.ended, r.err = true, err
	}
	r.mu.Unlock()
	r.stop(nil)
}

// campaign runs CMD while the plain election is won.
func (r *guarded) campaign(s *session) error {
	e, err := leader.New(s.ns, r.c.str("election"), leader.Config{ID: r.id})
	if err != nil {
		return r.c.failed(r.ctx, err)
	}
	r.c.mon.becomes(s.nc.connected) // a candidate that waits is what it is to be
	done := r.waits(func(ctx context.Context) string {
		if l, err := e.Leader(ctx); err == nil && l.Holder != "" {
			return l.Holder + " leads " + r.what
		}
		return r.what + " has no leader"
	})
	err = e.Run(r.ctx, func(ctx context.Context, t *leader.Term) error {
		done()
		r.work(ctx, r.leads(t))
		return nil
	})
	done()
	if err != nil {
		return r.c.failed(r.ctx, err)
	}
	return nil
}

// takePart joins the group, and runs CMD while it leads it or has a share.
func (r *guarded) takePart(s *session) error {
	c := r.c
	r.m.works = r.assign
	g, err := r.m.join(r.ctx, s)
	if err != nil {
		if r.ctx.Err() != nil {
			return nil
		}
		return c.failed(r.ctx, err)
	}
	c.mon.becomes(isMember(g))
	done := r.waits(func(ctx context.Context) string {
		if l, err := g.Leader(ctx); err != nil || l.Holder == "" {
			return r.what + " has no leader"
		} else if !r.assign {
			return l.Holder + " leads " + r.what
		}
		return r.id + " has no share in " + r.what + " yet"
	})
	if r.assign {
		var p *partition.Partition
		if p, err = partition.Join(r.ctx, g, partition.Config{}); err == nil {
			err = p.Run(r.ctx, func(ctx context.Context, a *partition.Assignment) error {
				done()
				r.work(ctx, r.assigned(a))
				return nil
			})
		}
	} else {
		err = g.Lead(r.ctx, func(ctx context.Context, t *leader.Term) error {
			done()
			r.work(ctx, r.leads(t))
			return nil
		})
	}
	done()
	bounded, cancel := context.WithTimeout(context.Background(), max(c.g.timeout, 2*c.g.lease))
	defer cancel()
	if lerr := g.Leave(bounded); lerr != nil && err == nil {
		c.note("run: left %s without an answer: the others wait until the lease runs out", r.what)
	}
	switch cause := context.Cause(g.Context()); {
	case errors.Is(cause, quorate.ErrEvicted):
		return failure(ExitRunFailed, "run: %q was evicted from %s", r.id, r.what)
	case errors.Is(cause, quorate.ErrIDInUse):
		return failure(ExitRunFailed, "run: another process is %q in %s now: give each its own --id", r.id, r.what)
	case err != nil:
		return c.failed(r.ctx, err)
	}
	return nil
}

// waits says after a second what is waited for, until done is called.
func (r *guarded) waits(what func(ctx context.Context) string) (done func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-over:
		case <-r.ctx.Done():
		case <-time.After(time.Second):
			ctx, cancel := context.WithTimeout(r.ctx, time.Second)
			defer cancel()
			if text := what(ctx); r.ctx.Err() == nil {
				r.c.note("run: waiting as %s: %s", r.id, text)
			}
		}
	})
	return sync.OnceFunc(func() { close(over); wg.Wait() })
}

// A hold is a right that CMD works under.
type hold struct {
	text  string   // what is held, for remarks
	env   []string // what CMD is told of it
	lease time.Duration
	term  time.Duration // TERM so long before the deadline
	left  func() time.Duration
	over  <-chan struct{} // closed when it has ended for good
}

func (r *guarded) leads(t *leader.Term) hold {
	lease := r.c.g.lease
	return hold{
		text:  fmt.Sprintf("%s leads %s, token %d", r.id, r.what, t.Token()),
		env:   []string{"QUORATE_TOKEN=" + strconv.FormatUint(t.Token(), 10)},
		lease: lease, term: lease * 4 / 10,
		left: func() time.Duration {
			if !t.Live() {
				return 0
			}
			return t.Left()
		},
		over: t.Context().Done(),
	}
}

func (r *guarded) assigned(a *partition.Assignment) hold {
	gen := strconv.FormatUint(a.Generation, 10)
	lease := a.Lease() * 10 / 18 // that of who leads: it grants two of them, a tenth is the margin
	env := []string{"QUORATE_TOKEN=" + gen, "QUORATE_GENERATION=" + gen, "QUORATE_INDEX=" + strconv.Itoa(a.Index), "QUORATE_TOTAL=" + strconv.Itoa(a.Total)}
	if a.Of > 0 {
		env = append(env, "QUORATE_BUCKETS="+strings.Trim(strings.ReplaceAll(fmt.Sprint(a.Buckets), " ", ","), "[]"))
	}
	return hold{
		text:  fmt.Sprintf("%s has share %d of %d of %s, generation %s", r.id, a.Index, a.Total, r.what, gen),
		env:   env,
		lease: lease, term: lease * 13 / 10,
		left: func() time.Duration {
			if !a.Live() {
				return 0
			}
			return a.Left()
		},
		over: a.Context().Done(),
	}
}

// work runs CMD under a right, again and again if that is wanted. It returns when nothing of CMD is left (R12, R39), and the right is to be
// given up, or has ended, or run is over. ctx ends when CMD is to end.
func (r *guarded) work(ctx context.Context, h hold) {
	pause := restartFirst
	for {
		began := time.Now()
		res, err := r.once(ctx, h)
		if err != nil {
			r.finish(failure(ExitRunFailed, "run: %w", err))
			return
		}
		name := r.c.after[0]
		interrupted := r.ctx.Err() != nil
		switch {
		case errors.Is(res.Err, guardian.ErrNotFound):
			r.finish(failure(ExitNotFound, "run: %s: %s", name, strings.TrimPrefix(res.Err.Error(), guardian.ErrNotFound.Error()+": ")))
			return
		case errors.Is(res.Err, guardian.ErrCannotRun):
			r.finish(failure(ExitCannotRun, "run: %s cannot be run: %s", name, strings.TrimPrefix(res.Err.Error(), guardian.ErrCannotRun.Error()+": ")))
			return
		case res.Err != nil && r.restart == "no" && !interrupted:
			r.finish(failure(ExitRunFailed, "run: %w: %s was killed", res.Err, name))
			return
		case res.Started && (interrupted || r.restart == "no" || res.Err == nil && res.Why == deadline.Itself && r.restart == "lost"):
			r.finish(codeError(res.Code))
			return
		}
		wait := pause
		again := true // after a pause that grows
		switch {
		case ctx.Err() != nil:
			if res.Started {
				r.c.note("run: %s has ended (%s): %s; it waits for its turn again", name, codeText(res.Code), reasonOf(ctx))
			}
			return
		case res.Err != nil:
			r.c.note("run: %s: %s was killed, and is started again in %s", res.Err, name, pause)
		case res.Why == deadline.Itself:
			r.c.note("run: %s has ended (%s), and is started again in %s", name, codeText(res.Code), pause)
		default:
			if res.Started {
				r.c.note("run: %s has ended (%s): the lease was not renewed", name, codeText(res.Code))
			}
			wait, again = h.lease/6, false // perhaps it is again
		}
		if again {
			if pause = min(2*pause, restartMost); time.Since(began) > restartMost {
				pause = restartFirst
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// once runs CMD once.
func (r *guarded) once(ctx context.Context, h hold) (guardian.Result, error) {
	if ctx.Err() != nil || h.left() <= h.term {
		return guardian.Result{Why: deadline.Unrenewed}, nil
	}
	c := r.c
	var stdin io.Reader // a terminal is read by nobody: whoever works in it has it
	if !terminal(c.stdin) {
		stdin = c.stdin
	}
	g, err := guardian.Start(guardian.Config{
		Path: r.path, Args: c.after, Env: r.environment(h), Stdin: stdin, Stdout: c.stdout, Stderr: c.stderr,
		Name: r.what, Lease: h.lease, Term: h.term, Grace: r.grace, Left: h.left, Lost: h.over,
	})
	if err != nil {
		return guardian.Result{}, err
	}
	c.note("run: %s: starts %s", h.text, c.after[0])
	r.mu.Lock()
	r.guard = g
	r.mu.Unlock()
	select {
	case <-ctx.Done():
		g.End()
		<-g.Done() // however long it takes: R12
	case <-g.Done():
	}
	r.mu.Lock()
	r.guard = nil
	r.mu.Unlock()
	return g.Result(), nil
}

// environment is CMD's: this process's own, and what it is told.
func (r *guarded) environment(h hold) []string {
	var env []string
	for _, name := range sortedKeys(r.c.env) {
		if !slices.Contains(runVariables, name) {
			env = append(env, name+"="+r.c.env[name])
		}
	}
	if r.m == nil {
		env = append(env, "QUORATE_ELECTION="+r.c.str("election"))
	} else {
		env = append(env, "QUORATE_GROUP="+r.m.group)
	}
	return append(append(env, "QUORATE_MEMBER="+r.id), h.env...)
}

// signalled is a signal for CMD, or for who waits for it to be its turn.
func (r *guarded) signalled(s syscall.Signal, ends bool) {
	r.mu.Lock()
	g := r.guard
	r.mu.Unlock()
	switch {
	case g != nil:
		g.Signal(s)
	case ends:
		r.stop(Interrupted(s))
	}
}

// codeError ends run with CMD's exit code.
func codeError(code int) error {
	if code == 0 {
		return nil
	}
	return silent(code)
}

func codeText(code int) string {
	if code > 128 && code < 160 {
		return fmt.Sprintf("signal %d", code-128)
	}
	return fmt.Sprintf("exit code %d", code)
}

// reasonOf is why a right has ended, or is to end, in a few words.
func reasonOf(ctx context.Context) string {
	cause := context.Cause(ctx)
	for _, known := range []struct {
		err  error
		text string
	}{
		{quorate.ErrStepDown, "it was asked to step down"},
		{quorate.ErrRevoked, "the work is shared anew"},
		{quorate.ErrExpired, "the lease ran out"},
		{quorate.ErrNotQuorate, "the group has fewer members than its minimum size"},
		{quorate.ErrEvicted, "the member was evicted"},
		{quorate.ErrBucketLost, "the bucket was lost"},
		{quorate.ErrConnClosed, "the connection was closed"},
		{quorate.ErrLost, "another has it"},
	} {
		if errors.Is(cause, known.err) {
			return known.text
		}
	}
	return cause.Error()
}
