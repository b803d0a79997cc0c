package bloc

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/bloc/session"
	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/inner"
)

// metaGateway is where the record of a session's member names its gateway; metaListen marks the gateways.
const (
	metaGateway = "bloc-gateway"
	metaListen  = "bloc-listen"
)

// A live is a session that this gateway has: one goroutine that owns the session's machine, and the member that stands for the client.
type live struct {
	gw     *Gateway
	id     string
	box    *inner.Mailbox[any]
	m      *session.Machine
	seq    uint64
	right  *coord.Right // of the present assignment
	stamp  uint64       // with which it is let go of
	h      *coord.Handle
	g      *coord.Group // nil while it waits to become a member
	ask    []askInput   // polls of the present step
	cancel context.CancelFunc
	gone   bool // Leave was asked for
	over   bool

	member atomic.Bool   // it is a member: this gateway has the session
	ended  chan struct{} // closed when all of it is over
}

// Inputs beside those of the machine.
type (
	askInput struct {
		answer chan reply // has room for one
	}
	joinedInput struct {
		g   *coord.Group
		err error
	}
	rightInput struct {
		stamp uint64
		right *coord.Right
		session.Granted
	}
	endedInput struct{ cause error } // the membership is over
	leftInput  struct{}
)

// reply is what a poll is answered with.
type reply struct {
	session.Answer
	from *live // who is to be told that the answer was written; nil: nobody
}

// begin makes the session. It becomes a member as soon as M2 allows.
func (gw *Gateway) begin(id string) *live {
	ctx, cancel := context.WithCancel(context.Background())
	s := &live{gw: gw, id: id, box: inner.NewMailbox[any](1 << 12), cancel: cancel, ended: make(chan struct{}),
		m: session.New(session.Config{Timeout: gw.cfg.Timeout, Cache: gw.cfg.Settle}, gw.in.Now())}
	gw.tasks.Go(func() {
		g, err := coord.JoinWith(ctx, gw.ns, gw.group, coord.Config{ID: id, NoLead: true, Meta: map[string]string{metaGateway: gw.id}},
			coord.Extra{Beside: true, Works: true})
		s.box.Put(joinedInput{g, err})
	})
	gw.tasks.Go(s.loop)
	return s
}

func (s *live) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !s.over {
		select {
		case <-s.box.C():
			for _, in := range s.box.Take() {
				s.gw.in.Gate.Pass()
				s.take(in)
			}
		case <-timer.C:
			s.gw.in.Gate.Pass()
			s.step(session.Tick{})
		}
		timer.Reset(max(s.m.Next()-s.gw.in.Now().Mono, 0))
	}
	s.cancel()
	s.gw.forget(s)
	close(s.ended)
}

func (s *live) take(in any) {
	switch in := in.(type) {
	case askInput:
		s.seq++
		s.ask = append(s.ask, in)
		p := session.Poll{Seq: s.seq}
		if s.right != nil {
			p.Live, p.Deadline = s.right.Live(), s.right.Deadline()
		}
		s.step(p)
	case rightInput:
		s.right, s.stamp = in.right, in.stamp
		s.step(in.Granted)
	case session.Input:
		s.step(in)
	case joinedInput:
		s.joined(in)
	case endedInput:
		s.over = true
		if !s.gone {
			s.gw.log.Info("session ended", "session", s.id, "cause", in.cause)
		}
	case leftInput:
		s.over = true
	}
}

func (s *live) joined(in joinedInput) {
	if in.err != nil {
		s.over = true // given up, or the namespace is closed
		return
	}
	s.g, s.h = in.g, in.g.Inner()
	context.AfterFunc(s.g.Context(), func() { s.box.Put(endedInput{context.Cause(s.g.Context())}) })
	if s.gone {
		s.leave()
		return
	}
	s.h.Attach(&coord.Worker{
		Granted: func(gr coord.Grant) {
			s.gw.granted(gr)
			s.box.Put(rightInput{gr.Stamp, gr.Right, session.Granted{Gen: gr.Generation, Index: gr.Index, Total: gr.Total}})
		},
		Revoke: func(coord.Revoke) { s.box.Put(session.Revoke{}) },
		Ended:  func(error, clock.Instant, bool) { s.box.Put(session.Ended{}) },
	})
	s.member.Store(true)
}

func (s *live) step(in session.Input) {
	for _, fx := range s.m.Step(s.gw.in.Now(), in) {
		switch fx := fx.(type) {
		case session.Answer:
			r := reply{Answer: fx}
			if !fx.Settled {
				r.from = s
			}
			for _, a := range s.ask {
				a.answer <- r
			}
			s.ask = s.ask[:0]
		case session.LetGo:
			s.h.LetGo(s.stamp)
		case session.Seldom:
			s.gw.log.Warn("a client asks too seldom: it is told SETTLING", "session", s.id, "every", fx.Gap.Round(time.Millisecond), "settle", s.gw.cfg.Settle)
		case session.Leave:
			s.gone = true
			s.member.Store(false)
			if fx.Reason == session.Silent {
				s.gw.log.Info("session ended: its client is silent", "session", s.id)
			}
			if s.g == nil {
				s.cancel() // the joining undoes itself
			} else {
				s.leave()
			}
		}
	}
}

// leave leaves the group. What cannot be reached is not waited for: it runs out by itself.
func (s *live) leave() {
	g := s.g
	s.gw.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*s.gw.in.Lease)
		defer cancel()
		if err := g.Leave(ctx); err != nil && !errors.Is(err, coord.ErrUntold) {
			s.gw.log.Warn("session left without an answer: its lease runs out", "session", s.id, "error", err)
		}
		s.box.Put(leftInput{})
	})
}

// poll asks the session. ok is false if it ended meanwhile.
func (s *live) poll(ctx context.Context) (r reply, ok bool, err error) {
	in := askInput{make(chan reply, 1)}
	s.box.Put(in)
	select {
	case r = <-in.answer:
		return r, true, nil
	case <-s.ended:
		return reply{}, false, nil
	case <-ctx.Done():
		return reply{}, false, context.Cause(ctx)
	}
}

// told says that the client was told something else than SETTLED.
func (s *live) told(seq uint64) { s.box.Put(session.Told{Seq: seq}) }

// giveUp ends a session that waits to become a member: another gateway has it, or a native member is that.
func (s *live) giveUp() { s.box.Put(session.Delete{}) }
