package coord

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/offset"
	"github.com/quorate/quorate/internal/seat"
	"github.com/quorate/quorate/internal/wire"
)

// Inputs of a member's loop beside those of its machine.
type (
	replyInput struct {
		inc uint64 // of the heartbeat it answers
		r   wire.Reply
		at  clock.Instant // when it arrived
	}
	rolesInput struct {
		role string
		on   bool
	}
	workInput  struct{ w *Worker }
	letGoInput struct{ stamp, asked uint64 }
	takesInput struct {
		weight int
		zone   string
	}
	leaveInput struct{}
	resigned   struct{} // it is no candidate any more, and leads nothing
	startInput struct { // a new incarnation may begin
		*attempt
		recorded bool // its record stands
	}
	keptInput struct { // a try to write the member's record is over
		inc   uint64
		ok    bool
		meta  uint64 // version of the metadata that was written
		roles []string
		taken bool // another process's stands, of the same incarnation
	}
	departed   struct{ told bool } // whether the record is known to be gone
	reattached struct{}
)

// memberLoop owns the machine of the member's present incarnation in one goroutine.
type memberLoop struct {
	g     *Group
	box   *inner.Mailbox[any]
	out   *inner.Outbox
	subs  subscriptions
	inbox string // prefix of the reply subjects
	roles []string

	m       *seat.Machine // nil between two incarnations
	inc     uint64
	joined  string
	nonce   string
	after   uint64   // the next incarnation is higher than this
	acted   bool     // this incarnation has been a member
	attempt *attempt // the last one
	worker  *Worker
	grant   *Grant
	hold    *hold  // deadline of the grant and of all buckets; nil: nothing is held
	stamp   uint64 // of what the worker was told last
	buckets map[int]*BucketGrant
	mapped  string // how keys go to shares, as the leader told last
	takes   takesInput
	engaged bool // the worker has not let go of what it was granted last
	leaving bool
	keeping bool // the record is being written
	told    bool // that it has left is known: its record is gone, or the leader said so
	parting bool // it is to be removed, or has been: only by this incarnation itself
	lost    <-chan struct{}
	epoch   uint64
	timer   *time.Timer
	refresh time.Time
	io      sync.WaitGroup
	undo    []func()
	waits   []*roleWait // who waits for a role to be known
	stored  []string    // roles in the record of this incarnation, as far as it is known to stand
	rekeep  bool        // the record has changed while it was being written
	reasked bool        // ... and the leader has asked for it
	meta    metadata
	follows following
	heeds   func(offset.Sample)    // who wants to know the leaders' clocks
	poked   atomic.Bool            // a leader's poke waits
	reason  atomic.Pointer[string] // why the member is not one yet
	over    error                  // set when the loop is to end, and why
	stop    context.Context
	cancel  context.CancelFunc
}

// memberTTL is how long a member's record is kept without being written again; it is, every third of it.
const memberTTL = 24 * time.Hour

func newMemberLoop(g *Group, roles []string) *memberLoop {
	l := &memberLoop{g: g, box: inner.NewMailbox[any](1 << 16), roles: roles, meta: metadata{now: g.cfg.Meta}, inbox: g.nc.NewInbox() + "."}
	l.stop, l.cancel = context.WithCancel(context.Background())
	l.setWhy("no leader has answered yet")
	return l
}

func (l *memberLoop) setWhy(s string) { l.reason.Store(&s) }
func (l *memberLoop) why() string     { return *l.reason.Load() }

func (l *memberLoop) listen() error {
	g := l.g
	err := errors.Join(
		l.subs.add(g.nc, l.inbox+"*", l.heardReply),
		l.subs.add(g.nc, wire.GroupSubject(g.in.Name, g.group, wire.SubPoke), func(*nats.Msg) {
			if !l.poked.Swap(true) { // a flood of them is one
				l.box.Put(seat.Poke{})
			}
		}),
		l.subs.add(g.nc, wire.GroupSubject(g.in.Name, g.group, wire.SubAllDot+">"), g.received),
		l.subs.add(g.nc, wire.GroupSubject(g.in.Name, g.group, wire.SubMemberDot+g.cfg.ID+".>"), g.received))
	if err != nil {
		l.subs.end()
		return err
	}
	l.undo = append(l.undo, g.in.Store.OnReconnect(func() { l.box.Put(seat.Poke{}) }))
	l.lost, l.epoch = g.in.Store.Lost(), g.in.Store.Epoch() // in this order: a loss in between is seen
	return nil
}

func (l *memberLoop) unlisten() {
	l.subs.end()
	for _, u := range l.undo {
		u()
	}
}

// heardReply takes a leader's answer. Nobody there (no responders) has no body, and is no answer.
func (l *memberLoop) heardReply(m *nats.Msg) {
	var r wire.Reply
	if len(m.Data) == 0 || wire.Decode(m.Data, &r) != nil {
		return
	}
	inc, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, l.inbox), 10, 64)
	if err != nil {
		return
	}
	l.box.Offer(replyInput{inc, r, l.g.in.Now()})
}

func (l *memberLoop) setRole(role string, on bool) { l.box.Put(rolesInput{role, on}) }
func (l *memberLoop) work(w *Worker)               { l.box.Put(workInput{w}) }
func (l *memberLoop) leave()                       { l.box.Put(leaveInput{}) }

func (l *memberLoop) loop() {
	g := l.g
	l.timer = time.NewTimer(0)
	defer l.timer.Stop()
	l.out = inner.NewOutbox(64)
	l.begin()
	for l.over == nil {
		g.in.Gate.Pass()
		select {
		case <-l.lost:
			l.lost = nil
			l.bucketLost()
		case <-l.box.C():
			for _, in := range l.box.Take() {
				g.in.Gate.Pass()
				select {
				case <-l.lost: // before anything that was begun in the bucket that is lost (H7)
					l.lost = nil
					l.bucketLost()
				default:
				}
				l.take(in)
			}
		case <-l.timer.C:
			l.step(seat.Tick{})
			if !l.refresh.IsZero() && time.Now().After(l.refresh) {
				l.keep(false)
			}
		case <-g.in.Store.ConnClosed():
		}
		if l.over == nil && g.in.ConnClosed() {
			l.step(seat.Kill{})
			l.over = quorate.ErrConnClosed
		}
		if l.hold != nil && l.hold.over.Load() != nil { // somebody asked, and was told that it is not live
			l.step(seat.Kill{})
		}
		l.rearm()
	}
	l.cancel()
	if l.engaged && l.worker != nil && l.hold == nil {
		l.engaged = false // its work hears of the end by the group's context
	}
	g.noMember(reason(l.over))
	if l.worker != nil {
		g.note(inner.Note{Kind: inner.NoteShareWanted})
	}
	g.end(l.over) // before anything that may wait for the connection
	l.out.Close()
	l.unlisten()
	l.io.Wait()
	if a := l.attempt; a != nil && a.wrote && !l.parting && (errors.Is(l.over, quorate.ErrLeft) || errors.Is(l.over, quorate.ErrIDInUse)) {
		l.takeBack(a)
	}
	g.finish(l.over)
}

func (l *memberLoop) rearm() {
	if l.m == nil {
		l.timer.Reset(l.g.in.Lease / 6)
		return
	}
	d := max(l.m.Next()-l.g.in.Now().Mono, 0)
	l.timer.Reset(min(d, l.g.in.Lease/6))
}

func (l *memberLoop) take(in any) {
	switch in := in.(type) {
	case letGoInput:
		if in.stamp != l.stamp {
			break // it has been told more since
		}
		l.take(seat.LetGo{For: in.asked})
	case seat.LetGo:
		if in.For == 0 {
			l.engaged = false
		}
		l.step(in)
		if l.leaving && l.m == nil {
			l.over = quorate.ErrLeft
		}
	case seat.Input:
		if _, ok := in.(seat.Poke); ok {
			l.poked.Store(false)
		}
		l.step(in)
	case replyInput:
		if in.inc != l.inc {
			break // to an earlier incarnation
		}
		l.sample(in)
		heartbeat := l.noteReply(in)
		l.told = l.told || in.r.Gone != ""
		l.g.heardOf(min(in.r.Token, wire.MaxToken-1))
		l.toldParams(in.r)
		l.toldMap(in.r.Map)
		l.step(seat.Reply{Reply: in.r})
		if heartbeat.Kind != "" {
			heartbeat.Holds = l.g.holds()
			l.g.note(heartbeat)
		}
		l.knows(in.r)
	case tunedInput:
		l.follows.at = time.Now().Add(l.g.in.Lease)
	case metaInput:
		l.meta.set(in)
		l.keep(false)
	case heedInput:
		l.heeds = in.fn
	case *roleWait:
		l.waits = append(l.waits, in)
		l.step(seat.Poke{})
	case rolesInput:
		has := slices.Contains(l.roles, in.role)
		switch {
		case in.on && !has:
			l.roles = append(slices.Clone(l.roles), in.role)
		case !in.on && has:
			l.roles = slices.DeleteFunc(slices.Clone(l.roles), func(r string) bool { return r == in.role })
		default:
			return
		}
		l.stored = nil // what stands, or is on its way, says something else
		l.step(seat.Roles{Roles: l.roles})
		if l.nonce != "" {
			l.keep(false)
		}
	case takesInput:
		if in == l.takes {
			break
		}
		l.takes = in
		l.step(seat.Takes{Weight: in.weight, Zone: in.zone})
		if l.nonce != "" {
			l.keep(false)
		}
	case workInput:
		if (l.worker == nil) != (in.w == nil) {
			n := inner.Note{Kind: inner.NoteShareWanted}
			if in.w != nil {
				n.Count = 1
			}
			l.g.note(n)
		}
		l.worker = in.w
		if in.w == nil && l.engaged {
			l.take(seat.LetGo{})
		} else if in.w != nil {
			l.handOver(in.w)
		}
	case leaveInput:
		if l.leaving {
			break
		}
		l.leaving = true
		if l.m == nil {
			l.over = quorate.ErrLeft
			break
		}
		l.io.Go(l.resign)
	case resigned:
		if l.m == nil {
			l.over = quorate.ErrLeft
			break
		}
		l.step(seat.Leave{})
	case startInput:
		l.started(in)
	case keptInput:
		l.kept(in)
	case departed:
		l.told = l.told || in.told
		l.step(seat.Departed{})
	case reattached:
		l.lost, l.epoch = l.g.in.Store.Lost(), l.g.in.Store.Epoch()
		if l.m == nil && !l.leaving {
			l.begin()
		}
	}
}

// An attempt is one try to begin an incarnation. Its goroutine owns it until the incarnation has started.
type attempt struct {
	nonce  string
	roles  []string // as written
	takes  takesInput
	meta   map[string]string
	ver    uint64 // of the metadata
	epoch  uint64
	after  uint64
	inc    uint64
	joined string
	left   uint64 // incarnation before it, if that one left by itself
	wrote  bool   // a record of it may stand, or may land yet
}

// begin looks up the member's record and starts a new incarnation: with a record of its own if the id is free, and
// without one while another incarnation's stands: then the leader decides (S7, H7).
func (l *memberLoop) begin() {
	g := l.g
	a := &attempt{nonce: nuid.Next(), roles: slices.Clone(l.roles), takes: l.takes, meta: l.meta.now, ver: l.meta.ver, epoch: l.epoch, after: max(l.inc, l.after)}
	l.attempt, l.nonce = a, a.nonce
	l.io.Go(func() {
		for l.stop.Err() == nil {
			recorded, ok, err := l.try(a)
			switch {
			case ok:
				l.box.Put(startInput{a, recorded})
				return
			case errors.Is(err, kv.ErrBucketLost), errors.Is(err, kv.ErrClosed):
				return // begun again once there is a bucket
			case err != nil && l.stop.Err() == nil:
				l.setWhy(err.Error())
			}
			sleep(l.stop, g.in.Lease/12)
		}
	})
}

// spread is how far above the one before an incarnation is, at most, if the wall clock does not say more: two processes that wait under one
// id must not choose the same.
const spread = 1 << 20

// try looks at the id's record and writes one if there is none. ok: the incarnation can start.
func (l *memberLoop) try(a *attempt) (recorded, ok bool, err error) {
	e, err := l.read(l.stop)
	if err != nil {
		return false, false, err
	}
	if e.Epoch != a.epoch {
		return false, false, kv.ErrBucketLost
	}
	var rec wire.Member
	readable := e.Op == kv.Record && wire.Decode(e.Value, &rec) == nil
	if readable && a.wrote && rec.Nonce == a.nonce {
		return true, true, nil // L4: an unanswered try has landed
	}
	if readable && rec.Params != nil {
		return false, false, errors.New("another process is a member under this id with MessagingOnly: a group either has a leader or has none")
	}
	if a.inc == 0 {
		now := l.g.in.Now().WallTime()
		a.inc, a.joined = uint64(now.UnixMicro()), wire.Time(now)
	}
	before := a.after
	if readable && rec.Incarnation < wire.MaxToken {
		before = max(before, rec.Incarnation)
	}
	if e.Op == kv.Marker && e.Inc < wire.MaxToken {
		before = max(before, e.Inc)
	}
	if a.inc <= before {
		a.inc = before + 1 + rand.Uint64N(spread)
	}
	if e.Op == kv.Record {
		a.wrote = false // what was sent expected what stood there before: it cannot land any more
		return false, true, nil
	}
	if e.Op == kv.Marker && e.Reason != wire.ReasonLeft && e.Reason != wire.ReasonUndone {
		return false, true, nil // the next leader must see it too: whose record it was may still act (M2). The leader asks for the record
	}
	if e.Op == kv.Marker && e.Reason == wire.ReasonLeft {
		a.left = e.Inc // the marker is written over: who leads must know that it holds nothing any more (S5)
	}
	a.wrote = true
	_, out, err := l.write(e.Revision, l.record(a.inc, a.joined, a.roles, a.takes, a.meta, a.nonce, a.left), a.epoch)
	if out != kv.Yes {
		l.g.log.Debug("member record not written", "outcome", out, "error", err)
	}
	return true, out == kv.Yes, err
}

func (l *memberLoop) started(in startInput) {
	if l.m != nil || l.over != nil {
		return
	}
	if !l.leaving && (l.lost == nil || in.epoch != l.epoch) {
		return // H7: its record is in a bucket that was lost meanwhile; begun again in the next one
	}
	if l.leaving {
		l.over = quorate.ErrLeft
		return
	}
	g := l.g
	l.inc, l.joined, l.nonce, l.attempt, l.acted, l.stored = in.inc, in.joined, in.nonce, in.attempt, false, nil
	p := wire.Place{ID: g.cfg.ID, Incarnation: in.inc}
	g.place.Store(&p)
	l.m = seat.New(seat.Config{Place: p, Roles: l.roles, Joined: in.joined, Lease: g.in.Lease,
		AckTimeout: g.in.Timings.AckTimeout, Engaged: l.engaged, Unrecorded: !in.recorded, Weight: l.takes.weight, Zone: l.takes.zone})
	l.refresh = time.Now().Add(memberTTL / 3)
	if in.recorded {
		l.stored = in.roles
		l.meta.stands(in.ver)
		if !slices.Equal(in.roles, l.roles) || in.takes != l.takes || in.ver != l.meta.ver {
			l.keep(false)
		}
	}
	l.step(seat.Poke{})
}

// resign ends the candidacy before the member leaves: a leader hands over first, so that the next one hears it leave, and
// only its own place moves (P4). Work of the leader that does not return in time is not waited for.
func (l *memberLoop) resign() {
	g := l.g
	g.leading()
	bound := time.NewTimer(g.in.Timings.Grace)
	defer bound.Stop()
	select {
	case <-g.led:
	case <-bound.C:
	case <-l.stop.Done():
	}
	l.box.Put(resigned{})
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (l *memberLoop) step(in seat.Input) {
	g := l.g
	if l.m == nil {
		return
	}
	now := g.in.Now()
	all := l.m.Step(now, in)
	for _, fx := range all {
		switch fx := fx.(type) {
		case seat.Send:
			l.tells(fx.HB)
			data, reply := wire.Encode(&fx.HB), l.inbox+strconv.FormatUint(l.inc, 10)
			l.out.Send(func() {
				_ = g.nc.PublishRequest(wire.GroupSubject(g.in.Name, g.group, wire.SubHeartbeat), reply, data) // lost: the next one is soon
			})
		case seat.Member:
			d := fx.Deadline
			g.live.Store(&d)
			if fx.First {
				l.acted = true
				g.isMember()
				p := *g.place.Load()
				g.in.Tell(inner.Event{Kind: inner.MemberLive, Key: wire.MemberKey(g.group, p.ID), Member: p.ID, Incarnation: p.Incarnation,
					Live: func() bool { return g.Live() && *g.place.Load() == p }})
				g.log.Info("member", "incarnation", p.Incarnation)
				select {
				case <-g.joined:
				default:
					close(g.joined)
				}
			}
		case seat.Waiting:
			l.setWhy("another process may still act under this id")
			if g.cfg.FailIfInUse {
				select {
				case <-g.joined:
				default:
					l.over = quorate.ErrIDInUse
				}
			}
		case seat.Gained:
			l.gained(fx)
		case seat.Granted:
			l.granted(fx)
		case seat.Extended:
			if l.hold != nil {
				d := fx.Deadline
				l.hold.deadline.Store(&d)
			}
		case seat.Revoke:
			if l.worker == nil || !l.engaged {
				l.box.Put(seat.LetGo{})
				break
			}
			r := Revoke{Cause: quorate.ErrRevoked, For: fx.For, Keep: fx.Keep}
			switch {
			case fx.NotQuorate:
				r.Cause = quorate.ErrNotQuorate
			case fx.For == 0:
				r.Cause = quorate.ErrLeft
			}
			l.worker.Revoke(r)
		case seat.Lost:
			l.gaveUp(fx.Buckets, quorate.ErrRevoked, now)
		case seat.Kept:
			l.heldOn()
		case seat.Released:
			cause := quorate.ErrRevoked
			switch {
			case l.leaving:
				cause = quorate.ErrLeft
			case fx.NotQuorate:
				cause = quorate.ErrNotQuorate
			}
			l.ended(cause, now, fx.Kept)
		case seat.Lapsed:
			cause := quorate.ErrExpired
			switch gone, _ := all[len(all)-1].(seat.Gone); {
			case gone.Reason == wire.GoneEvicted:
				cause = quorate.ErrEvicted
			case gone.Reason == wire.GoneSuperseded:
				cause = quorate.ErrIDInUse
			case g.in.ConnClosed():
				cause = quorate.ErrConnClosed
			case l.lost == nil:
				cause = quorate.ErrBucketLost
			}
			l.ended(cause, fx.Until, false)
			if l.worker == nil || !l.engaged {
				l.box.Put(seat.LetGo{})
			}
		case seat.Rewrite:
			l.stored = nil
			l.keep(true)
		case seat.Depart:
			g.noMember(wire.GoneLeft)
			l.parting = true
			if !l.keeping { // else once that write is over: it must not land after the removal
				l.depart()
			}
		case seat.Left:
			l.m = nil
			if !fx.Clean || !l.told {
				l.g.untold.Store(true)
			}
			l.parting = true // also when unclean: what its work may still hold runs out with its record
			l.over = quorate.ErrLeft
			return
		case seat.Gone:
			l.goneAs(fx)
			return
		}
	}
}

// noteReply notes what a leader's answer to a heartbeat says, for log lines, and for hooks: they are told once the machine has taken it.
func (l *memberLoop) noteReply(in replyInput) (n inner.Note) {
	l.g.known.Term(min(in.r.Token, wire.MaxToken-1))
	l.g.known.Generation(min(max(in.r.Gen, in.r.Settling), wire.MaxToken-1))
	if l.m == nil || !l.g.in.Noting() {
		return n
	}
	if sent, ok := l.m.Sent(in.r.Seq); ok && in.r.ClockUS > 0 { // a late answer says nothing of how long it takes
		n = inner.Note{Kind: inner.NoteHeartbeat, Term: in.r.Token, Took: in.at.Sub(sent)}
	}
	return n
}

// goneAs: this incarnation is no member any more.
func (l *memberLoop) goneAs(gone seat.Gone) {
	g := l.g
	g.noMember(gone.Reason)
	l.m = nil
	g.log.Info("no member any more", "incarnation", l.inc, "reason", gone.Reason)
	switch {
	case l.leaving || gone.Reason == wire.GoneLeft && l.acted:
		l.over = quorate.ErrLeft
	case gone.Reason == wire.GoneEvicted:
		l.over = quorate.ErrEvicted
	case gone.Reason == wire.GoneSuperseded && l.acted:
		l.over = quorate.ErrIDInUse
	default: // R24: joins again by itself, as a new incarnation, for ever; also one whose number was too low to be let in
		l.after = max(l.after, gone.Newest)
		l.begin()
	}
}

// bucketLost ends what was held in the bucket that is gone, and joins again in the next one.
func (l *memberLoop) bucketLost() {
	g := l.g
	l.step(seat.Kill{})
	g.noMember("bucket-lost")
	l.m = nil
	if l.leaving {
		l.parting = true // there is nothing to remove any more
		l.over = quorate.ErrLeft
		return
	}
	l.io.Go(func() {
		for l.stop.Err() == nil {
			ctx, cancel := context.WithTimeout(l.stop, g.in.Lease)
			err := g.in.Store.Reattach(ctx)
			cancel()
			if err == nil {
				l.box.Put(reattached{})
				return
			}
			if errors.Is(err, kv.ErrClosed) {
				return // the namespace is closed, and everybody is asked to leave
			}
			l.setWhy(err.Error())
			sleep(l.stop, g.in.Lease/6)
		}
	})
}

// ---- the member's record

func (l *memberLoop) record(inc uint64, joined string, roles []string, takes takesInput, meta map[string]string, nonce string, left uint64) []byte {
	g := l.g
	return wire.Encode(&wire.Member{V: wire.Version, ID: g.cfg.ID, Incarnation: inc, Joined: joined, Roles: append([]string{}, roles...),
		Meta: meta, Weight: takes.weight, Zone: takes.zone, Host: g.in.Host, PID: os.Getpid(), Version: inner.Version(), Left: left,
		ReturnMS: wire.ToMS(g.cfg.ReturnWindow), Nonce: nonce})
}

func (l *memberLoop) key() string { return wire.MemberKey(l.g.group, l.g.cfg.ID) }

// read and write are one try each; it takes a sixth of the lease at most (R3).
func (l *memberLoop) read(ctx context.Context) (kv.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, l.g.in.Lease/6)
	defer cancel()
	return l.g.in.Store.Read(ctx, l.key())
}

func (l *memberLoop) write(expected uint64, value []byte, epoch uint64) (uint64, kv.Outcome, error) {
	ctx, cancel := context.WithTimeout(l.stop, l.g.in.Lease/6)
	defer cancel()
	return l.g.in.Store.Do(ctx, kv.Write{Key: l.key(), Expected: expected, Value: value, TTL: memberTTL, Epoch: epoch})
}

// keep writes the member's record (again): over its own, a marker, or that of an earlier incarnation that has ended.
func (l *memberLoop) keep(asked bool) {
	if l.m == nil || l.parting {
		return
	}
	if l.keeping {
		l.rekeep, l.reasked = true, l.reasked || asked // what is being written may be out of date already
		return
	}
	l.keeping = true
	l.refresh = time.Now().Add(l.g.in.Lease) // unless it is confirmed before
	value := l.record(l.inc, l.joined, l.roles, l.takes, l.meta.now, l.nonce, l.attempt.left)
	inc, nonce, epoch, ver, roles := l.inc, l.nonce, l.epoch, l.meta.ver, l.roles
	l.attempt.wrote = true
	l.io.Go(func() {
		ok, taken := false, false
		defer func() { l.box.Put(keptInput{inc: inc, ok: ok, meta: ver, roles: roles, taken: taken}) }()
		e, err := l.read(l.stop)
		if err != nil || e.Epoch != epoch {
			return // asked for again
		}
		var rec wire.Member
		if e.Op == kv.Record && wire.Decode(e.Value, &rec) == nil && rec.Incarnation == inc && rec.Nonce != nonce {
			taken = true
			return
		}
		if !asked && e.Op == kv.Record && wire.Decode(e.Value, &rec) == nil && rec.Incarnation > inc {
			return // a later one's: the leader says who is the member, and asks that one to write
		}
		_, out, err := l.write(e.Revision, value, epoch)
		if ok = out == kv.Yes; !ok {
			l.g.log.Debug("member record not written", "outcome", out, "error", err)
		}
	})
}

func (l *memberLoop) kept(in keptInput) {
	l.keeping = false
	if in.ok && in.inc == l.inc {
		l.stored = in.roles
		l.meta.stands(in.meta)
		l.known()
	}
	switch {
	case l.parting:
		if l.m != nil {
			l.depart()
		}
	case in.inc != l.inc || l.rekeep:
		again := l.reasked
		l.rekeep, l.reasked = false, false
		l.keep(again)
	case in.taken && l.m != nil: // M2: who stands recorded acts, the other never has under this number
		l.step(seat.Kill{})
		l.goneAs(seat.Gone{Reason: wire.GoneSuperseded, Newest: in.inc})
	case in.ok:
		l.refresh = time.Now().Add(memberTTL / 3)
		l.step(seat.Recorded{})
	case len(l.meta.waits) > 0, len(l.waits) > 0:
		l.refresh = time.Now() // tried again at the next tick
	}
}

// depart removes the member's own record, by revision, and only if it is its own (R8).
func (l *memberLoop) depart() {
	nonce := l.nonce
	l.io.Go(func() {
		l.box.Put(departed{l.remove(nonce, false)})
	})
}

// takeBack removes what an attempt that was given up has written, also if it has not landed yet.
func (l *memberLoop) takeBack(a *attempt) { l.remove(a.nonce, true) }

// remove purges the record with this nonce, for half a lease at most: what cannot be reached runs out by itself. With bar
// it also keeps out one that may be on its way, by a marker on the revision it expects (R22).
func (l *memberLoop) remove(nonce string, bar bool) (done bool) {
	ctx, cancel := context.WithTimeout(context.Background(), l.g.in.Lease/2)
	defer cancel()
	for ctx.Err() == nil {
		e, err := l.read(ctx)
		if err == nil {
			var rec wire.Member
			w := kv.Write{Key: l.key(), Expected: e.Revision, Purge: true, Reason: wire.ReasonLeft, Nonce: nonce, TTL: time.Hour}
			switch {
			case e.Op != kv.Record && !bar, e.Op == kv.Marker && e.Nonce == nonce:
				return true
			case e.Op != kv.Record:
				w.Reason = wire.ReasonUndone
			case wire.Decode(e.Value, &rec) != nil || rec.Nonce != nonce:
				return true // another's
			default:
				w.Inc = rec.Incarnation
			}
			try, end := context.WithTimeout(ctx, l.g.in.Lease/6)
			_, out, derr := l.g.in.Store.Do(try, w)
			end()
			if out == kv.Yes {
				return true
			}
			err = derr
		}
		if errors.Is(err, kv.ErrClosed) || errors.Is(err, kv.ErrBucketLost) {
			return false
		}
		sleep(ctx, l.g.in.Lease/24)
	}
	return false
}
