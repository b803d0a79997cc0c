package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nuid"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

// Levels of a check are its exit codes, as monitors have them.
const (
	checkOK       = 0
	checkWarning  = 1
	checkCritical = 2
	checkUnknown  = 3
)

var checkLevels = [...]string{"ok", "warning", "critical", "unknown"}

func checkCommand() *command {
	return &command{
		name:    "check",
		section: sectionServe,
		summary: "health of NATS and of the groups, for monitors",
		about: "Checks that NATS can be reached, that the namespace's bucket is as it must be, and that compare-and-set works (a record is created, read, updated and purged); then, of " +
			"each GROUP, or of all groups, that somebody leads it, that its members are heard, and that its work is settled.\n\n" +
			"The exit code says how bad the worst of it is: 0 ok, 1 warning, 2 critical, 3 unknown. With --ready it is 0, also for a warning, or 1: for the health checks of containers.",
		args: []argSpec{{name: "GROUP", optional: true, many: true}},
		flags: []flagSpec{
			{name: "ready", kind: kindBool, usage: "exit with 0 if it can be used, else with 1"},
			{name: "members", kind: kindInt, value: "N", usage: "critical when a group has fewer members"},
			{name: "unsettled", kind: kindDuration, value: "D", usage: "critical when the work of a group is being shared anew for longer than that"},
			{name: "format", value: "FORMAT", def: "text", choices: []string{"text", "nagios", "prometheus", "json"}, usage: "text, nagios, prometheus (for a text file collector) or json"},
		},
		needs: needClient,
		json:  []shape{{of: checkReport{}}},
		examples: []example{
			{"quorate check", "NATS, the bucket and all groups"},
			{"quorate check workers --members 3 --unsettled 1m --format nagios", "as a plugin of Nagios or Icinga"},
			{"quorate check --ready", "in a container's health check"},
			{"quorate check --format prometheus > /var/lib/node_exporter/quorate.prom", "from cron"},
		},
		exits: []exitSpec{
			{checkOK, "all is well"},
			{checkWarning, "warning: members are late, replicas behind, or NATS is slow; with --ready: not ready"},
			{checkCritical, "critical: NATS cannot be reached or used, a group has no leader, too few members, or is not settled in time; also: wrong usage"},
			{checkUnknown, "it could not be found out"},
		},
		run: runCheck,
	}
}

// checkReport is what `check -o json` shows.
type checkReport struct {
	Status      string      `json:"status" doc:"of the worst of it: ok, warning, critical, unknown"`
	Namespace   string      `json:"namespace" doc:"that was checked"`
	Server      string      `json:"server" doc:"where it is connected; \"\" if it is not"`
	RoundTripUS int64       `json:"round_trip_us" doc:"how long a compare-and-set write took; 0: none was made"`
	Replicas    int         `json:"replicas" doc:"of the bucket"`
	Checks      []checkItem `json:"checks" doc:"all that was checked, in order"`
	Groups      []checkedOf `json:"groups" doc:"the groups that were looked at"`
}

// checkItem is one thing that was checked.
type checkItem struct {
	Check  string `json:"check" doc:"nats, bucket, compare-and-set, leader, members or settled"`
	Group  string `json:"group" doc:"\"\" if it is of no group"`
	Status string `json:"status" doc:"ok, warning, critical or unknown"`
	Text   string `json:"text" doc:"what was found"`
}

// checkedOf is a group that was checked.
type checkedOf struct {
	Group       string `json:"group" doc:"its name"`
	Leader      string `json:"leader" doc:"\"\" when there is none"`
	Members     int    `json:"members" doc:"how many there are"`
	Late        int    `json:"late" doc:"how many of them miss heartbeats"`
	Phase       string `json:"phase" doc:"as 'quorate groups' has it"`
	UnsettledMS int64  `json:"unsettled_ms" doc:"for how long the work has been shared anew, by the server's clock; 0: settled, or nobody works"`
}

// A checkup is one `check`.
type checkup struct {
	c      *call
	report checkReport
	worst  int
}

func runCheck(ctx context.Context, c *call) error {
	format := c.str("format")
	if c.g.json {
		if c.isSet("format") && format != "json" {
			return usageError("check: --format %s and --json: leave one out", format)
		}
		format = "json"
	}
	if c.isSet("members") && len(c.args) == 0 {
		return usageError("check: --members %d of which group? name it", c.integer("members"))
	}
	for _, g := range c.args {
		if err := wire.CheckGroup(g); err != nil {
			return err
		}
	}
	if err := c.checkLease(); err != nil {
		return err
	}
	k := &checkup{c: c, report: checkReport{Namespace: c.g.namespace, Checks: []checkItem{}, Groups: []checkedOf{}}}
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	if err := k.look(bounded); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	k.report.Status = checkLevels[k.worst]
	var err error
	switch format {
	case "json":
		err = c.printJSON(k.report)
	case "nagios":
		err = c.print(k.nagios())
	case "prometheus":
		err = c.print(k.prometheus())
	default:
		err = c.print(k.text())
	}
	if err != nil || k.worst == checkOK {
		return err
	}
	if c.bool("ready") {
		if k.worst == checkWarning {
			return nil
		}
		return silent(checkWarning)
	}
	return silent(k.worst)
}

// note notes what a check has found. Critical is worse than unknown: what is known to be broken counts first.
func (k *checkup) note(level int, check, group, format string, args ...any) {
	k.report.Checks = append(k.report.Checks, checkItem{check, group, checkLevels[level], oneLine(fmt.Sprintf(format, args...))})
	order := []int{checkOK, checkWarning, checkUnknown, checkCritical}
	if slices.Index(order, level) > slices.Index(order, k.worst) {
		k.worst = level
	}
}

// because is an error without the command's name.
func (k *checkup) because(err error) string {
	return strings.TrimPrefix(err.Error(), k.c.cmd.name+": ")
}

// look checks one thing after the other, each only if those before it allow for it. The error is one of usage.
func (k *checkup) look(ctx context.Context) error {
	c := k.c
	if _, err := c.settings(); err != nil {
		if exitCode(err) == ExitUsage {
			return err
		}
		k.note(checkUnknown, "nats", "", "%s", k.because(err))
		return nil
	}
	nc, err := c.connect(ctx)
	if err != nil {
		if exitCode(err) == ExitUsage {
			return err
		}
		k.note(checkCritical, "nats", "", "%s", k.because(err))
		return nil
	}
	defer nc.Close()
	k.report.Server = nc.where
	k.note(checkOK, "nats", "", "connected to %s, server %s", nc.where, nc.ConnectedServerVersion())

	st, ds, err := kv.Inspect(ctx, nc.Conn, kv.Options{Namespace: c.g.namespace, Domain: nc.jsDomain, Timeout: c.g.timeout, Logger: c.logger()})
	switch {
	case errors.Is(err, kv.ErrBucketMissing):
		k.note(checkCritical, "bucket", "", "namespace %q has no bucket: 'quorate init' or the first member makes it", c.g.namespace)
		return nil
	case err != nil:
		k.note(checkCritical, "bucket", "", "%s", k.because(c.failed(ctx, err)))
		return nil
	}
	k.report.Replicas = st.Replicas
	text := count(st.Replicas, "replica")
	if st.Leader != "" {
		text += ", led by " + st.Leader
	}
	switch {
	case len(ds) > 0:
		var texts []string
		for _, d := range ds {
			texts = append(texts, d.String())
		}
		k.note(checkCritical, "bucket", "", "%s differs from what it must be: %s: see 'quorate init'", wire.Bucket(c.g.namespace), strings.Join(texts, "; "))
		return nil
	case len(st.Behind) > 0:
		k.note(checkWarning, "bucket", "", "%s, not caught up: %s", text, strings.Join(st.Behind, ", "))
	default:
		k.note(checkOK, "bucket", "", "as it must be, %s", text)
	}
	return k.inNamespace(ctx, nc)
}

func (k *checkup) inNamespace(ctx context.Context, nc *conn) error {
	c := k.c
	s, err := c.sessionOn(ctx, nc, quorate.Timings{})
	if err != nil {
		if exitCode(err) == ExitUsage {
			return err
		}
		k.note(checkCritical, "compare-and-set", "", "%s", k.because(err))
		return nil
	}
	defer s.ns.Close(context.WithoutCancel(ctx)) // nothing of ours is open in it
	if err := s.ns.Check(ctx); err != nil {
		k.note(checkCritical, "compare-and-set", "", "%s", k.because(c.failed(ctx, err)))
		return nil
	}
	took, now, err := roundTrip(ctx, s.ns)
	switch bound := s.ns.Timings().Renew; {
	case err != nil:
		k.note(checkCritical, "compare-and-set", "", "%s", k.because(c.failed(ctx, err)))
		return nil
	case took > bound:
		k.report.RoundTripUS = took.Microseconds()
		k.note(checkWarning, "compare-and-set", "", "works, but a write took %s, longer than a renewal may (%s): give a longer --lease", shortly(took), bound)
	default:
		k.report.RoundTripUS = took.Microseconds()
		k.note(checkOK, "compare-and-set", "", "works; a write took %s", shortly(took))
	}
	names := slices.Compact(slices.Sorted(slices.Values(c.args)))
	if len(names) == 0 {
		if names, err = coord.Groups(ctx, s.ns); err != nil {
			k.note(checkUnknown, "leader", "", "%s", k.because(c.failed(ctx, err)))
			return nil
		}
	}
	k.groups(ctx, s.ns, names, now)
	return nil
}

// roundTrip measures one compare-and-set write, and tells what time it is for the server.
func roundTrip(ctx context.Context, ns *quorate.Namespace) (took time.Duration, now time.Time, err error) {
	const ttl = 10 * time.Second
	store, nonce := ns.Inner().Store, nuid.Next()
	w := kv.Write{Key: wire.CheckKey(nonce), Value: []byte(`{"v":1,"nonce":"` + nonce + `"}`), TTL: ttl}
	began := time.Now()
	rev, out, err := store.Do(ctx, w)
	took = time.Since(began)
	if out != kv.Yes {
		if err == nil {
			err = errors.New("a write was refused")
		}
		return took, now, err
	}
	e, err := store.Read(ctx, w.Key)
	if err != nil {
		return took, now, err
	}
	_, _, err = store.Do(ctx, kv.Write{Key: w.Key, Expected: rev, Purge: true, Nonce: nonce, TTL: ttl})
	return took, e.Stored, err
}

// groups checks groups, several at once.
func (k *checkup) groups(ctx context.Context, ns *quorate.Namespace, names []string, now time.Time) {
	const atOnce = 16
	type found struct {
		g   checkedOf
		err error
	}
	all := make([]found, len(names))
	turn := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, name := range names {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			all[i].g, all[i].err = checkGroup(ctx, ns, name, now)
		})
	}
	wg.Wait()
	for _, f := range all {
		if f.err != nil {
			level := checkUnknown
			if errors.Is(f.err, coord.ErrNoGroup) {
				level, f.err = checkCritical, errors.New("no such group: 'quorate groups' lists them")
			}
			k.note(level, "leader", f.g.Group, "%s", k.because(k.c.failed(ctx, f.err)))
			continue
		}
		k.judge(f.g)
	}
}

// checkGroup looks at a group.
func checkGroup(ctx context.Context, ns *quorate.Namespace, name string, now time.Time) (checkedOf, error) {
	g := checkedOf{Group: name, Phase: phaseIdle}
	cl, err := coord.Open(ctx, ns, name)
	if err != nil {
		return g, err
	}
	defer cl.Close()
	r, err := cl.Roster(ctx)
	if err != nil {
		return g, err
	}
	g.Leader, g.Members = r.Leader, len(r.Members)
	works, since := false, now
	for _, m := range r.Members {
		if m.Status == coord.Late {
			g.Late++
		}
		if slices.Contains(m.Roles, wire.RoleWork) {
			works = true
			if m.Joined.Before(since) {
				since = m.Joined
			}
		}
	}
	if r.Leader == "" {
		l, err := cl.Leader(ctx)
		if err != nil {
			return g, err
		}
		switch {
		case l.Holder != "":
			// It did not answer, and may be busy: whoever leads renews. (A group that has just lost its leader is looked at for a lease.)
			if l, err = renewing(ctx, cl); err != nil {
				return g, err
			}
			g.Leader = l.Holder
		case len(r.Members) == 0 && l.Keeper == "":
			return g, coord.ErrNoGroup
		}
	}
	e, err := ns.Inner().Store.Read(ctx, wire.SettledKey(name))
	if err != nil {
		return g, err
	}
	rec, _ := settledOf(e)
	if rec != nil {
		g.Phase = rec.Phase
	}
	if r.Phase != "" {
		g.Phase = r.Phase
	}
	switch {
	case !works && g.Phase != phaseNotQuorate:
		g.Phase = phaseIdle
	case rec != nil && rec.Phase == wire.Settling:
		// By the server's own clock: when it stored the record, and what time it was just now.
		g.UnsettledMS = max(wire.ToMS(now.Sub(e.Stored)), 1)
	case rec == nil && works:
		g.UnsettledMS = max(wire.ToMS(now.Sub(since)), 1) // nothing was settled since the first of them came
	}
	return g, nil
}

// judge says what is wrong with a group.
func (k *checkup) judge(g checkedOf) {
	c := k.c
	k.report.Groups = append(k.report.Groups, g)
	switch {
	case g.Leader != "":
		k.note(checkOK, "leader", g.Group, "%s leads", g.Leader)
	case g.Phase == phaseNotQuorate:
		k.note(checkCritical, "leader", g.Group, "not quorate: it has fewer members than its minimum size")
	default:
		k.note(checkCritical, "leader", g.Group, "it has no leader")
	}
	text := count(g.Members, "member")
	if g.Late > 0 {
		text += fmt.Sprintf(", %d late", g.Late)
	}
	switch least := c.integer("members"); {
	case c.isSet("members") && g.Members < least:
		k.note(checkCritical, "members", g.Group, "%s, at least %d are wanted", text, least)
	case g.Late > 0:
		k.note(checkWarning, "members", g.Group, "%s", text)
	default:
		k.note(checkOK, "members", g.Group, "%s", text)
	}
	unsettled := wire.MS(g.UnsettledMS)
	switch most := c.duration("unsettled"); {
	case g.UnsettledMS == 0 && g.Phase == phaseIdle:
		k.note(checkOK, "settled", g.Group, "nobody works in it")
	case g.UnsettledMS == 0:
		k.note(checkOK, "settled", g.Group, "%s", g.Phase)
	case c.isSet("unsettled") && unsettled > most:
		k.note(checkCritical, "settled", g.Group, "unsettled for %s, longer than %s", shortly(unsettled), most)
	default:
		k.note(checkOK, "settled", g.Group, "unsettled for %s", shortly(unsettled))
	}
}

// text is the report for people.
func (k *checkup) text() string {
	p := k.c.colours(k.c.stdout)
	paint := map[string]func(string) string{"ok": p.good, "warning": p.warn, "critical": p.bad, "unknown": p.warn}
	var b strings.Builder
	wide := 0
	for _, l := range k.report.Checks {
		wide = max(wide, len(l.Check+l.Group)+1)
	}
	for _, l := range k.report.Checks {
		what := l.Check
		if l.Group != "" {
			what = l.Group + " " + l.Check
		}
		fmt.Fprintf(&b, "%s%s  %-*s  %s\n", paint[l.Status](l.Status), strings.Repeat(" ", 8-len(l.Status)), wide, what, l.Text)
	}
	return b.String()
}

// nagios is the report as a plugin of Nagios prints it: one line with what is wrong, or a summary, and measurements; then all that was checked.
func (k *checkup) nagios() string {
	r := k.report
	var wrong []string
	for _, l := range r.Checks {
		if l.Status != "ok" {
			text := l.Text
			if l.Group != "" {
				text = l.Group + ": " + text
			}
			wrong = append(wrong, text)
		}
	}
	members, unsettled := 0, int64(0)
	for _, g := range r.Groups {
		members += g.Members
		unsettled = max(unsettled, g.UnsettledMS)
	}
	text := strings.Join(wrong, "; ")
	if text == "" {
		text = fmt.Sprintf("%s, %s, a write took %s", count(len(r.Groups), "group"), count(members, "member"), shortly(time.Duration(r.RoundTripUS)*time.Microsecond))
	}
	safe := strings.NewReplacer("|", "/") // it ends the text
	var b strings.Builder
	fmt.Fprintf(&b, "QUORATE %s - %s", strings.ToUpper(r.Status), safe.Replace(text))
	if r.RoundTripUS > 0 {
		least, most := "", ""
		if k.c.isSet("members") {
			least = strconv.Itoa(k.c.integer("members")) + ":"
		}
		if k.c.isSet("unsettled") {
			most = strconv.FormatFloat(k.c.duration("unsettled").Seconds(), 'f', -1, 64)
		}
		fmt.Fprintf(&b, " | round_trip=%ss;;;0 groups=%d;;;0", strconv.FormatFloat(float64(r.RoundTripUS)/1e6, 'f', -1, 64), len(r.Groups))
		for _, g := range r.Groups {
			prefix := ""
			if len(r.Groups) > 1 {
				prefix = g.Group + "_"
			}
			fmt.Fprintf(&b, " '%smembers'=%d;;%s;0 '%sunsettled'=%ss;;%s;0", prefix, g.Members, least, prefix,
				strconv.FormatFloat(float64(g.UnsettledMS)/1e3, 'f', -1, 64), most)
		}
	}
	b.WriteString("\n")
	for _, l := range r.Checks {
		what := l.Check
		if l.Group != "" {
			what = l.Group + " " + l.Check
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", strings.ToUpper(l.Status), what, safe.Replace(l.Text))
	}
	return b.String()
}

// prometheus is the report in the text format of Prometheus.
func (k *checkup) prometheus() string {
	r := k.report
	var b strings.Builder
	metric := func(name, help string, lines ...string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n%s\n", name, help, name, strings.Join(lines, "\n"))
		}
	}
	ns := fmt.Sprintf("namespace=%q", r.Namespace)
	one := func(name, labels string, v any) string { return fmt.Sprintf("%s{%s} %v", name, labels, v) }
	flag := func(on bool) int {
		if on {
			return 1
		}
		return 0
	}
	metric("quorate_check_status", "worst of what was checked: 0 ok, 1 warning, 2 critical, 3 unknown", one("quorate_check_status", ns, k.worst))
	metric("quorate_check_connected", "1 when NATS could be reached", one("quorate_check_connected", ns, flag(r.Server != "")))
	if r.Replicas > 0 {
		metric("quorate_check_replicas", "replicas of the namespace's bucket", one("quorate_check_replicas", ns, r.Replicas))
	}
	if r.RoundTripUS > 0 {
		metric("quorate_check_round_trip_seconds", "time that a compare-and-set write took", one("quorate_check_round_trip_seconds", ns, float64(r.RoundTripUS)/1e6))
	}
	var leader, members, late, unsettled []string
	for _, g := range r.Groups {
		labels := fmt.Sprintf("%s,group=%q", ns, g.Group)
		leader = append(leader, one("quorate_check_leader", labels, flag(g.Leader != "")))
		members = append(members, one("quorate_check_members", labels, g.Members))
		late = append(late, one("quorate_check_members_late", labels, g.Late))
		unsettled = append(unsettled, one("quorate_check_unsettled_seconds", labels, float64(g.UnsettledMS)/1e3))
	}
	metric("quorate_check_leader", "1 when the group has a leader", leader...)
	metric("quorate_check_members", "members of the group", members...)
	metric("quorate_check_members_late", "members that the leader has not heard in time", late...)
	metric("quorate_check_unsettled_seconds", "for how long the work of the group has been shared anew; 0 when it is settled", unsettled...)
	return b.String()
}

// shortly is a duration with three digits that count.
func shortly(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
