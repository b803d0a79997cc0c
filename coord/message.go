package coord

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
)

// To is whom a message is for: [ToAll], [ToLeader] or [ToMember].
type To struct{ rest, who string }

// Whom a message can be for.
var (
	ToAll    = To{wire.SubAllDot, "all"}
	ToLeader = To{wire.SubLeaderDot, "the leader"}
)

// ToMember is one member.
func ToMember(id string) To { return To{wire.SubMemberDot + id + ".", id} }

func (t To) check() error {
	if t.rest == "" {
		return errors.New("coord: a message needs a receiver: ToAll, ToLeader or ToMember")
	}
	if id, ok := strings.CutPrefix(t.rest, wire.SubMemberDot); ok {
		return wire.CheckID(strings.TrimSuffix(id, "."))
	}
	return nil
}

// A Message is one message as a handler gets it. Who sent it, and with which token, is what the sender says: whoever may publish in
// the namespace can say anything.
type Message struct {
	ID          string // of the message; the same on each try of one question
	Try         int    // of a question asked with [Retry], from 1: above 1 a try before it may have been handled, here or by another leader. Else 0
	From        string // id of the sender; "" for a client that is no member
	Incarnation uint64 // of the sender; 0 for a client that is no member
	Token       uint64 // of the sender's term, if it led when it sent this; else 0. See [Group.HandleOrders]
	To          string // "all", "leader", or this member's id
	Topic       string
	Data        []byte
	Sent        time.Time // by the sender's wall clock
	Received    time.Time // by this process's
}

// Headers of a message, beside wire.HeaderToken and wire.HeaderInc.
const (
	headerFrom  = "Quorate-From"
	headerSent  = "Quorate-Sent"
	headerID    = "Quorate-Message"
	headerAsk   = "Quorate-Ask"
	headerTry   = "Quorate-Try"
	headerError = "Quorate-Error"
	headerNone  = "Quorate-No-Handler"

	headerRefused = "Quorate-Refused"
)

// Values of headerRefused: why a question was surely not handled.
const (
	refusedEnded = "1"    // by who has no right to, or is leaving
	refusedBusy  = "busy" // too many wait
)

// envelope is more than all headers of a message or of an answer without an error take: names have at most 63 bytes. The server counts them with the data.
const envelope = 1 << 10

// topic is one handler and the messages that wait for it.
type topic struct {
	name  string
	fn    func(ctx context.Context, m Message) ([]byte, error)
	queue chan *nats.Msg
	held  atomic.Int64 // bytes in the queue
	slow  atomic.Bool  // a message was dropped, and that was said
	order bool         // only messages of the present leader
	stop  context.CancelFunc
	done  chan struct{}
}

// How many messages, and how many bytes of them, wait for one handler. More are dropped, and that is said: messages are at-most-once.
const (
	queued     = 4096
	queueBytes = 64 << 20
)

// AnyTopic is the topic of a handler that gets what no other handler of the group's topics does.
const AnyTopic = "*"

// Handle has fn called with each message of a topic that is for this member: one call at a time, in order of arrival. What fn
// returns answers an [Client.Ask]; other messages ignore it. A second handler of a topic replaces the first, once a call of that
// has returned. stop waits for a call under way, so it must not be called from fn. fn's context ends with the membership.
//
// A question that is asked again (see [Retry]) is handled once: its answer is kept, and given again, as long as the last 1024 answers or 4 MiB of
// them reach. Another process, as the next leader is, knows nothing of it.
func (g *Group) Handle(name string, fn func(ctx context.Context, m Message) ([]byte, error)) (stop func(), err error) {
	return g.handler(name, false, fn)
}

// HandleOrders is [Group.Handle] for what only the leader may say: fn gets no message but those that their sender sent as the leader of the newest term that this
// member knows of, by the leader's replies and by such messages themselves. What a past leader sent is dropped, however late it comes; who asked
// gets a *[RemoteError].
//
// It cannot know of a term that nobody has told this member of yet: an order may be handled shortly after its sender has ceased to lead. What must not
// happen then is for the order's Token to prevent: hand it on to what is written to, as a fencing token.
func (g *Group) HandleOrders(name string, fn func(ctx context.Context, m Message) ([]byte, error)) (stop func(), err error) {
	return g.handler(name, true, fn)
}

func (g *Group) handler(name string, orders bool, fn func(ctx context.Context, m Message) ([]byte, error)) (stop func(), err error) {
	if err := wire.CheckTopic(name); err != nil && name != AnyTopic {
		return nil, fmt.Errorf("coord: %w", err)
	}
	ctx, cancel := context.WithCancel(g.inside(g.ctx))
	t := &topic{name: name, fn: fn, order: orders, queue: make(chan *nats.Msg, queued), stop: cancel, done: make(chan struct{})}
	g.mu.Lock()
	old := g.topics[name]
	g.topics[name] = t
	g.mu.Unlock()
	if old != nil {
		old.stop()
	}
	go func() {
		defer g.drop(t) // again, now that t.done tells
		defer close(t.done)
		if old != nil {
			<-old.done // one call at a time
		}
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case m := <-t.queue:
				t.held.Add(-int64(len(m.Data)))
				g.handle(ctx, t, m)
			}
		}
		g.drop(t)
	}()
	return func() {
		cancel()
		<-t.done
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.topics[name] == t {
			delete(g.topics, name)
		}
	}, nil
}

// drop refuses what waits for a handler that has ended. A question with more tries than one would else be under way for ever.
func (g *Group) drop(t *topic) {
	for {
		select {
		case m := <-t.queue:
			g.asks.forget(m)
			g.refuse(m, refusedEnded)
		default:
			return
		}
	}
}

// closeTopics ends the handlers and waits for them until ctx ends.
func (g *Group) closeTopics(ctx context.Context) {
	g.mu.Lock()
	var all []*topic
	for _, t := range g.topics {
		all = append(all, t)
	}
	clear(g.topics)
	g.mu.Unlock()
	for _, t := range all {
		t.stop()
	}
	for _, t := range all {
		select {
		case <-t.done:
		case <-ctx.Done():
			g.log.Warn("a handler has not returned", "topic", t.name)
		}
	}
}

// received takes a message that is for this member or for all. Who is not sure to be a member does not act as one (M2), and is
// silent: another process may be answering under the same id.
func (g *Group) received(m *nats.Msg) {
	if g.Live() {
		g.deliver(m)
	}
}

// deliver hands a message to its topic's handler.
func (g *Group) deliver(m *nats.Msg) {
	if len(m.Data) > wire.MaxData {
		return // not sent by Send or Ask
	}
	name := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	g.mu.Lock()
	t := g.topics[name]
	if t == nil && wire.CheckTopic(name) == nil {
		t = g.topics[AnyTopic]
	}
	g.mu.Unlock()
	asked := m.Header.Get(headerAsk) != "" && wire.Answerable(m.Reply)
	if t == nil {
		if asked {
			r := nats.NewMsg(m.Reply)
			r.Header.Set(headerNone, "1")
			r.Header.Set(headerFrom, g.cfg.ID)
			_ = g.nc.PublishMsg(r) // at most once
		}
		return
	}
	if asked && g.repeat(m) {
		return
	}
	if t.held.Add(int64(len(m.Data))) <= queueBytes {
		select {
		case t.queue <- m:
			if len(t.queue) < queued/2 {
				t.slow.Store(false)
			}
			select {
			case <-t.done: // ended while this one came
				g.drop(t)
			default:
			}
			return
		default:
		}
	}
	t.held.Add(-int64(len(m.Data)))
	g.asks.forget(m)
	g.refuse(m, refusedBusy)
	g.note(inner.Note{Kind: inner.NoteMessageDropped, Topic: name})
	if !t.slow.Swap(true) {
		g.log.Warn("messages dropped: their handler is slow", "topic", name)
	}
}

// repeat answers a question again that was handled before, and reports whether this one is under way or answered already.
func (g *Group) repeat(m *nats.Msg) bool {
	if m.Header.Get(headerTry) == "" {
		return false // it is asked once
	}
	answer, known := g.asks.begin(m.Header.Get(headerID))
	if answer != nil {
		r := *answer // the one that is kept belongs to all
		r.Subject = m.Reply
		_ = g.nc.PublishMsg(&r) // at most once
	}
	return known
}

// refuse tells who asks that the question was surely not handled: it was taken by who had the right to, and dropped unread. Who may have
// lost that right stays silent, for another may be answering.
func (g *Group) refuse(m *nats.Msg, why string) {
	if m.Header.Get(headerAsk) == "" || !wire.Answerable(m.Reply) {
		return
	}
	r := nats.NewMsg(m.Reply)
	r.Header.Set(headerRefused, why)
	r.Header.Set(headerFrom, g.cfg.ID)
	_ = g.nc.PublishMsg(r) // at most once
}

func (g *Group) handle(ctx context.Context, t *topic, m *nats.Msg) {
	msg := Message{ID: m.Header.Get(headerID), From: m.Header.Get(headerFrom), To: g.receiver(m.Subject), Topic: m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], Data: m.Data, Received: time.Now()}
	msg.Incarnation, msg.Token = number(m, wire.HeaderInc), number(m, wire.HeaderToken)
	msg.Try = int(min(number(m, headerTry), 1<<30))
	if us := number(m, headerSent); us != 0 {
		msg.Sent = time.UnixMicro(int64(us))
	}
	var data []byte
	err := errOldOrder
	if !t.order || g.current(msg.Token) {
		work, end := g.span(ctx, inner.Span{Op: inner.OpHandle, To: msg.To, Topic: msg.Topic, Message: msg.ID}, m.Header)
		data, err = t.fn(work, msg)
		end(inner.SpanEnd{Err: err})
	}
	if m.Header.Get(headerAsk) == "" || !wire.Answerable(m.Reply) {
		return
	}
	r := nats.NewMsg(m.Reply)
	r.Header.Set(headerFrom, g.cfg.ID)
	if err == nil {
		err = g.fits("answer", len(data))
	}
	if err != nil {
		text := strings.Map(printable, err.Error())
		r.Header.Set(headerError, text[:min(len(text), maxErrorText)])
	} else {
		r.Data = data
	}
	g.asks.answer(m, r)
	_ = g.nc.PublishMsg(r) // at most once
}

var errOldOrder = errors.New("not sent by the leader of the newest term known here")

// current says whether an order of a term is to be followed: none of a newer one is known.
func (g *Group) current(token uint64) bool {
	if token == 0 || token >= wire.MaxToken {
		return false
	}
	newest := g.newest.Load()
	if t, ok := g.Term(); ok {
		newest = max(newest, t.Token()) // one's own, before its first reply
	}
	if token < newest {
		return false
	}
	g.heardOf(token)
	return true
}

// heardOf remembers the newest term that this member was told of.
func (g *Group) heardOf(token uint64) {
	for {
		old := g.newest.Load()
		if token <= old || g.newest.CompareAndSwap(old, token) {
			return
		}
	}
}

// receiver is whom a message was for, by its subject.
func (g *Group) receiver(subject string) string {
	rest := strings.TrimPrefix(subject, wire.GroupSubject(g.in.Name, g.group, ""))
	switch {
	case strings.HasPrefix(rest, wire.SubAllDot):
		return "all"
	case strings.HasPrefix(rest, wire.SubLeaderDot):
		return "leader"
	}
	return g.cfg.ID
}

// number reads a header; what is none is 0.
func number(m *nats.Msg, header string) uint64 {
	n, err := strconv.ParseUint(m.Header.Get(header), 10, 63)
	if err != nil {
		return 0
	}
	return n
}

// maxErrorText is how many bytes of a handler's error travel. It fits, as an answer with an error has no data.
const maxErrorText = 1 << 10

func printable(r rune) rune {
	if r == '\n' || r == '\r' {
		return ' '
	}
	return r
}

// fits refuses data that neither this package nor the connected server would let through.
func (c *Client) fits(what string, n int) error {
	payload := c.nc.MaxPayload()
	limit := max(payload-envelope, 0)
	switch {
	case n > wire.MaxData && limit >= wire.MaxData:
		return fmt.Errorf("%s of %d bytes: at most %d are allowed (the server's max_payload is %d); store it, and send where it is", what, n, wire.MaxData, payload)
	case int64(n) > limit && n > 0:
		return fmt.Errorf("%s of %d bytes: at most %d fit, which is the server's max_payload of %d less %d for headers", what, n, limit, payload, envelope)
	}
	return nil
}

// sends begins the span of a message, and has it carry what ties the spans of those who get it to this one. A message that could not be made is nil.
func (c *Client) sends(ctx context.Context, op string, to To, m *nats.Msg) (context.Context, func(inner.SpanEnd)) {
	if !c.in.Spans() {
		return c.in.Span(ctx, inner.Span{})
	}
	s := inner.Span{Op: op, Group: c.group, Member: c.Self(), To: strings.TrimSuffix(strings.TrimPrefix(to.rest, wire.SubMemberDot), ".")}
	if m != nil {
		s.Topic, s.Message = m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], m.Header.Get(headerID)
	}
	ctx, end := c.in.Span(ctx, s)
	if m != nil {
		for name, value := range wire.CutTrace(c.in.Inject(ctx)) {
			if foreign(name) {
				m.Header[name] = []string{value} // as it is written: the names of others are their own
			}
		}
	}
	return ctx, end
}

// span begins the span of what a message or a ballot has led to.
func (g *Group) span(ctx context.Context, s inner.Span, carried nats.Header) (context.Context, func(inner.SpanEnd)) {
	if !g.in.Spans() {
		return g.in.Span(ctx, s)
	}
	s.Group, s.Member = g.group, g.cfg.ID
	remote := map[string]string{}
	for name, values := range carried {
		if foreign(name) && len(values) > 0 {
			remote[name] = values[0]
		}
	}
	s.Remote = wire.CutTrace(remote)
	return g.in.Span(ctx, s)
}

// foreign says that a header is neither ours nor the server's.
func foreign(name string) bool {
	return name != "" && !strings.HasPrefix(name, "Quorate-") && !strings.HasPrefix(name, "Nats-") && !strings.ContainsAny(name, ": \r\n")
}

func (c *Client) message(to To, name string, data []byte) (*nats.Msg, error) {
	if err := to.check(); err != nil {
		return nil, err
	}
	if name == "" {
		name = wire.DefaultTopic
	}
	if err := wire.CheckTopic(name); err != nil {
		return nil, err
	}
	if err := c.fits("message", len(data)); err != nil {
		return nil, err
	}
	m := nats.NewMsg(wire.GroupSubject(c.in.Name, c.group, to.rest+name))
	m.Data = data
	m.Header.Set(headerID, nuid.Next())
	m.Header.Set(headerSent, strconv.FormatInt(time.Now().UnixMicro(), 10))
	if c.self != nil {
		m.Header.Set(headerFrom, c.self.cfg.ID)
		if p := c.self.place.Load(); p != nil {
			m.Header.Set(wire.HeaderInc, strconv.FormatUint(p.Incarnation, 10))
		}
		if t, ok := c.self.Term(); ok {
			m.Header.Set(wire.HeaderToken, strconv.FormatUint(t.Token(), 10))
		}
	}
	return m, nil
}

// Send sends a message, at most once: it can be lost. The default topic is "text". It returns [ErrNoLeader] or [ErrNoMember] when surely nobody
// could receive it, and [quorate.ErrPermission] when the server did not take it. A sender hears its own ToAll.
func (c *Client) Send(ctx context.Context, to To, topic string, data []byte) error {
	m, err := c.message(to, topic, data)
	ctx, end := c.sends(ctx, inner.OpSend, to, m)
	if err == nil {
		err = c.send(ctx, to, m)
	}
	if err != nil {
		err = fmt.Errorf("coord: send to %s of group %q: %w", to.who, c.group, err)
	}
	end(inner.SpanEnd{Err: err})
	return err
}

func (c *Client) send(ctx context.Context, to To, m *nats.Msg) error {
	sub, err := c.nc.SubscribeSync(c.nc.NewInbox())
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	m.Reply = sub.Subject
	missing := c.in.Store.Permission(m.Subject)
	if err := c.nc.PublishMsg(m); err != nil {
		return err
	}
	// The server's word that nobody listens, or that this may not be sent, comes before its answer to the flush.
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.in.Lease)
		defer cancel()
	}
	if err := c.nc.FlushWithContext(ctx); err != nil {
		return err
	}
	if err := missing(); err != nil {
		return err
	}
	if n, _, err := sub.Pending(); err == nil && n > 0 {
		return c.nobody(to)
	}
	return nil
}

func (c *Client) nobody(to To) error {
	if to == ToLeader {
		return ErrNoLeader
	}
	return ErrNoMember
}

// A Reply answers an [Client.Ask], or is one of those of a [Client.Gather].
type Reply struct {
	From string // id of the member that answers
	Data []byte
	Err  error // in a Gather: why there is no data: *[RemoteError], [ErrNoHandler], [ErrBusy] or [ErrLeft]. Nil from Ask, which returns it
	RTT  time.Duration
}

// AskOption changes how [Client.Ask] asks.
type AskOption struct{ retry bool }

// Retry has [Client.Ask] ask again, until its context ends, also when a question that was delivered is not answered within a lease: the leader
// may have died over it. So it may be handled twice: [Message.ID] is the same on each try, [Message.Try] counts them. A process that
// handled it already gives its answer again (see [Group.Handle]); the next leader is another process, and has to find out by the ID.
var Retry = AskOption{retry: true}

// Ask sends a message to the leader or to one member and waits for what its handler returns: a *[RemoteError] if that was
// an error. To the leader it is tried again until ctx ends while it was surely not handled: nobody was there, or the
// receiver said that it does not lead; then the error is [ErrNoLeader]. A question that was delivered and not answered is asked again only with [Retry]; without an
// answer until ctx ends the error is [ErrNoAnswer]: it may have been handled. [ErrNoMember], [ErrNoHandler], [ErrBusy] (of a member) and
// [quorate.ErrPermission]: surely not.
func (c *Client) Ask(ctx context.Context, to To, topic string, data []byte, opts ...AskOption) (Reply, error) {
	m, err := c.message(to, topic, data)
	if to == ToAll {
		err = errors.New("one receiver is needed: ToLeader or ToMember; Gather asks all")
	}
	ctx, end := c.sends(ctx, inner.OpAsk, to, m)
	var r Reply
	if err == nil {
		r, err = c.ask(ctx, to, m, opts)
	}
	if err != nil {
		r, err = Reply{}, fmt.Errorf("coord: ask %s of group %q: %w", to.who, c.group, err)
	}
	end(inner.SpanEnd{Err: err})
	return r, err
}

func (c *Client) ask(ctx context.Context, to To, m *nats.Msg, opts []AskOption) (Reply, error) {
	fail := func(err error) (Reply, error) { return Reply{}, err }
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	if to == ToLeader && c.self != nil && c.self.cfg.MessagingOnly {
		return fail(ErrNoLeader)
	}
	m.Header.Set(headerAsk, "1")
	try := c.askOnce
	for _, o := range opts {
		if o.retry {
			again, err := c.newAsker()
			if err != nil {
				return fail(err)
			}
			defer again.close()
			try = again.ask
		}
	}
	delivered := false // and not answered, by some try
	for {
		sent := time.Now()
		r, err := try(ctx, m)
		var rep Reply
		if err == nil {
			rep = c.reply(r, sent)
			err = rep.Err
		}
		var remote *RemoteError
		switch {
		case err == nil, errors.As(err, &remote), errors.Is(err, ErrNoHandler):
			if err != nil {
				return fail(err)
			}
			return rep, nil
		case errors.Is(err, errUnanswered):
			delivered = true
			continue
		case errors.Is(err, ErrBusy) && to != ToLeader && !delivered:
			return fail(err)
		case errors.Is(err, ErrBusy), errors.Is(err, ErrLeft), errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded):
			if to != ToLeader && !delivered && !errors.Is(err, nats.ErrReconnectBufExceeded) {
				return fail(ErrNoMember)
			}
		case errors.Is(err, nats.ErrConnectionClosed):
			return fail(quorate.ErrConnClosed)
		case ctx.Err() != nil:
			return fail(fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx)))
		default:
			return fail(err)
		}
		sleep(ctx, c.in.Lease/24) // surely not handled by this try: there is no leader yet
		switch {
		case ctx.Err() == nil:
		case delivered:
			return fail(fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx)))
		default:
			return fail(fmt.Errorf("%w: %w", c.nobody(to), context.Cause(ctx)))
		}
	}
}

// errUnanswered: a try was delivered, or may have been, and its time is over.
var errUnanswered = errors.New("not answered")

func (c *Client) askOnce(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	return c.in.Store.Ask(ctx, m)
}

// reply reads an answer.
func (c *Client) reply(r *nats.Msg, sent time.Time) Reply {
	rep := Reply{From: r.Header.Get(headerFrom), RTT: time.Since(sent)}
	switch {
	case r.Header.Get(headerRefused) == refusedBusy:
		rep.Err = ErrBusy
	case r.Header.Get(headerRefused) != "":
		rep.Err = ErrLeft
	case r.Header.Get(headerNone) != "":
		rep.Err = ErrNoHandler
	case r.Header.Get(headerError) != "":
		rep.Err = &RemoteError{Member: rep.From, Text: r.Header.Get(headerError)}
	default:
		rep.Data = r.Data
	}
	return rep
}
