package vote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
)

// What members report about their part in an action, in Report.Status.
const (
	Done      = wire.ReportDone      // Act has returned without an error
	Erred     = wire.ReportFailed    // "failed": Act has returned an error
	Late      = wire.ReportLate      // it did not begin: it learned of the verdict, or was there again, only after the instant
	Cancelled = wire.ReportCancelled // it did not begin: it heard in time that the action was cancelled
	Unheard   = "unheard"            // nothing is known: it may have done it, or not
)

// A Report is one member's part in an action.
type Report struct {
	Member      string
	Incarnation uint64
	Status      string        // done, failed, late, cancelled; in an [Outcome] also unheard
	Late        time.Duration // of late: how long after the instant, by its own clock, it noticed
	Bound       time.Duration // of done and failed: how far from the instant it may have begun because of its clock; zero if that is not known
	Text        string        // of failed: the error; of late: why, if it is not the time alone
}

func report(w wire.Report) Report {
	return Report{Member: w.ID, Incarnation: w.Incarnation, Status: w.Status, Late: time.Duration(w.LateUS) * time.Microsecond,
		Bound: time.Duration(w.BoundUS) * time.Microsecond, Text: w.Text}
}

// An Outcome is what came of an action: one report for each member that said yes, and for those that had not answered when it was decided
// and have not said since that they take no part, in the order of their ids.
type Outcome struct {
	Ballot  string
	Reports []Report
}

// Count is how many have that status.
func (o Outcome) Count(status string) (n int) {
	for _, r := range o.Reports {
		if r.Status == status {
			n++
		}
	}
	return n
}

// Outcome collects what the members report about an action that was agreed on. It returns when all have, or when ctx ends: who is not heard
// by then is [Unheard]. Without a deadline it waits until two leases after the instant: give it more for actions that take longer. Any client can ask,
// also with a verdict of [Lookup], [Recent] or [Watch], for as long as members remember (ten minutes).
//
// The error is [ErrNoAction] when there was none, or the verdict is not a yes; or says that ctx was cancelled or the client has ended.
func (v Verdict) Outcome(ctx context.Context) (Outcome, error) {
	out := Outcome{Ballot: v.Ballot, Reports: []Report{}}
	if v.c == nil || v.wire.When == nil || !v.Won() {
		return out, fmt.Errorf("vote: outcome of ballot %s: %w", v.Ballot, ErrNoAction)
	}
	c := *v.c
	fail := func(err error) (Outcome, error) {
		return out, fmt.Errorf("vote: outcome of ballot %s of group %q: %w", v.Ballot, c.group, err)
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	ahead := max(v.At.Sub(c.in.Now().WallTime()), 0) // by this wall clock: it decides only for how long is waited, and when is asked
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ahead+2*c.in.Lease)
		defer cancel()
	}
	l := &collector{client: c, w: v.wire, heard: map[wire.Place]wire.Report{}, missing: map[wire.Place]bool{}, msgs: make(chan *nats.Msg, 1<<12)}
	for _, p := range v.wire.Electors {
		// Who had not answered may have said yes since.
		if slices.Contains(v.wire.Agreed, p.ID) || slices.Contains(v.wire.Silent, p.ID) {
			l.missing[p] = true
		}
	}
	err := l.collect(ctx, ahead)
	for _, r := range l.heard {
		if r.Status != wire.ReportNone {
			out.Reports = append(out.Reports, report(r))
		}
	}
	for p := range l.missing {
		out.Reports = append(out.Reports, Report{Member: p.ID, Incarnation: p.Incarnation, Status: Unheard})
	}
	slices.SortFunc(out.Reports, func(a, b Report) int { return strings.Compare(a.Member, b.Member) })
	if err != nil {
		return fail(err)
	}
	return out, nil
}

// collector waits for reports.
type collector struct {
	client
	w       wire.Verdict
	heard   map[wire.Place]wire.Report
	missing map[wire.Place]bool
	msgs    chan *nats.Msg
}

// collect listens to all reports, and asks the leader for those that it has got: then it announces the verdict again, and whoever has
// reported to a former leader repeats it.
func (l *collector) collect(ctx context.Context, ahead time.Duration) error {
	nc := l.in.Store.Conn()
	out := inner.NewOutbox(16) // the connection may stand still for seconds while it dials
	inbox := nc.NewInbox()
	var subs []*nats.Subscription
	failed := make(chan error, 1)
	out.Do(func() {
		for _, subject := range []string{wire.GroupSubject(l.in.Name, l.group, wire.SubReport), inbox} {
			sub, err := nc.ChanSubscribe(subject, l.msgs)
			if err != nil {
				if errors.Is(err, nats.ErrConnectionClosed) {
					err = quorate.ErrConnClosed
				}
				failed <- err
				return
			}
			subs = append(subs, sub)
		}
	})
	gone := make(chan struct{})
	forget, ok := l.in.Track(func(ctx context.Context) error { // the goroutine below is waited for
		select {
		case <-gone:
		case <-ctx.Done():
		}
		return nil
	})
	defer func() {
		out.Do(func() {
			for _, sub := range subs {
				_ = sub.Unsubscribe() // a closed connection has ended it already
			}
		})
		go func() {
			out.Close()
			close(gone)
			forget()
		}()
	}()
	if !ok {
		return quorate.ErrClosed
	}
	ask := func() {
		if !nc.IsConnected() {
			return
		}
		_ = nc.PublishRequest(wire.GroupSubject(l.in.Name, l.group, wire.SubPropose), inbox, // lost: it is asked again
			wire.Encode(&wire.Proposal{V: wire.Version, Ballot: l.w.Ballot, LeftMS: wire.ToMS(l.in.Lease), Ask: wire.AskOutcome}))
	}
	// Now and soon after, for what is reported already or just now (an action that was cancelled); then from the instant on, ever more slowly.
	out.Do(ask)
	instant := time.Now().Add(ahead + l.in.Lease/8)
	pace, early := l.in.Lease/6, 2
	again := time.NewTimer(pace)
	defer again.Stop()
	for len(l.missing) > 0 {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil
			}
			return context.Cause(ctx)
		case <-l.ended:
			return l.cause()
		case err := <-failed:
			return err
		case <-again.C:
			out.Send(ask)
			if early--; early == 0 && time.Until(instant) > pace {
				again.Reset(time.Until(instant))
				pace = l.in.Lease / 6
				continue
			}
			again.Reset(pace)
			pace = min(2*pace, 2*l.in.Lease)
		case m := <-l.msgs:
			l.take(m, m.Subject == inbox)
		}
	}
	return nil
}

func (l *collector) take(m *nats.Msg, answer bool) {
	if answer {
		var a wire.ProposalAnswer
		if len(m.Data) == 0 || wire.Decode(m.Data, &a) != nil {
			return // nobody leads right now
		}
		for _, r := range a.Reports {
			l.note(r)
		}
		return
	}
	var r wire.Report
	if len(m.Data) <= 4096 && wire.Decode(m.Data, &r) == nil {
		l.note(r)
	}
}

// note keeps the first report of each elector that can take part.
func (l *collector) note(r wire.Report) {
	p := wire.Place{ID: r.ID, Incarnation: r.Incarnation}
	if r.Ballot != l.w.Ballot || !l.missing[p] {
		return
	}
	switch r.Status {
	case wire.ReportDone, wire.ReportFailed, wire.ReportLate, wire.ReportCancelled, wire.ReportNone:
		l.heard[p] = r
		delete(l.missing, p)
	}
}
