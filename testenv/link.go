package testenv

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// A Direction is one way over a link, or both.
type Direction int

// Directions.
const (
	ToServer Direction = 1
	ToClient Direction = 2
	Both               = ToServer | ToClient
)

func (d Direction) String() string {
	return map[Direction]string{ToServer: "to server", ToClient: "to client", Both: "both ways"}[d]
}

// A Frame is one operation of the NATS protocol on its way over a link.
type Frame struct {
	Dir     Direction
	Verb    string // PUB, HPUB, MSG, HMSG, SUB, PING, ...; upper case
	Subject string // of PUB, HPUB, MSG, HMSG, SUB
	Reply   string // of PUB, HPUB, MSG, HMSG
	Answers string // MSG, HMSG: subject of the request that this is the answer to; "" if it is none
	Header  []byte // HPUB, HMSG: "NATS/1.0..." with its empty line
	Payload []byte // PUB, HPUB, MSG, HMSG, without the header
	raw     []byte
}

// IsMessage reports whether the frame carries a message.
func (f *Frame) IsMessage() bool {
	return f.Verb == "PUB" || f.Verb == "HPUB" || f.Verb == "MSG" || f.Verb == "HMSG"
}

// IsAck reports whether the frame is JetStream's answer to a publish that it stored.
func (f *Frame) IsAck() bool {
	return f.Dir == ToClient && bytes.HasPrefix(f.Payload, []byte(`{"stream":`)) && bytes.Contains(f.Payload, []byte(`"seq":`)) &&
		!bytes.Contains(f.Payload, []byte(`"error":`))
}

// IsHint reports whether the frame is a key of a quorate bucket, republished by the server.
func (f *Frame) IsHint() bool {
	return f.Dir == ToClient && strings.HasPrefix(f.Subject, "quorate.") && strings.Contains(f.Subject, ".kv.")
}

// A Verdict is what becomes of a frame.
type Verdict struct {
	drop  bool
	delay time.Duration
}

// Pass lets the frame through, Drop makes it vanish.
var (
	Pass = Verdict{}
	Drop = Verdict{drop: true}
)

// Delay delivers the frame later; what comes after it is not held up, so that messages overtake each other.
func Delay(d time.Duration) Verdict { return Verdict{delay: d} }

// A Filter decides about each frame. It runs on the link's goroutines: it must not block, or call the link.
type Filter func(f *Frame) Verdict

// A Link is a way to a server that can be broken. It is a nats.InProcessConnProvider: nats.InProcessServer(link).
//
// It works in a synctest bubble and outside.
type Link struct {
	to nats.InProcessConnProvider
	wg sync.WaitGroup

	mu        sync.Mutex
	pipes     map[*pipe]struct{}
	cut       Direction
	refuse    bool
	closed    bool
	filters   map[int]Filter
	nextID    int
	dropAcks  int
	dropHints bool
}

// NewLink makes a link to a server.
func NewLink(to nats.InProcessConnProvider) *Link {
	return &Link{to: to, pipes: map[*pipe]struct{}{}, filters: map[int]Filter{}}
}

// Errors of a link that is asked for a connection.
var (
	errCut    = errors.New("testenv: link is cut")
	errClosed = errors.New("testenv: link is closed")
)

// InProcessConn makes a connection over the link; it fails while the link is cut, down or closed.
func (l *Link) InProcessConn() (net.Conn, error) {
	if err := l.usable(); err != nil {
		return nil, err
	}
	far, err := l.to.InProcessConn()
	if err != nil {
		return nil, err
	}
	near, inner := net.Pipe()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.refuse || l.cut != 0 {
		far.Close()
		near.Close()
		return nil, errCut
	}
	p := &pipe{link: l, client: inner, server: far, requests: map[string]string{}}
	p.up = newLane(ToServer, far)
	p.down = newLane(ToClient, inner)
	l.pipes[p] = struct{}{}
	l.wg.Go(func() { p.read(inner, p.up) })
	l.wg.Go(func() { p.read(far, p.down) })
	l.wg.Go(p.up.write)
	l.wg.Go(p.down.write)
	return near, nil
}

func (l *Link) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errClosed
	case l.refuse || l.cut != 0:
		return errCut
	}
	return nil
}

// Cut holds everything that goes the given ways from now on, silently: neither side sees anything closed, new connections fail.
func (l *Link) Cut(d Direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut |= d
	for p := range l.pipes {
		p.hold(l.cut)
	}
}

// Heal lets everything through again, first what was held, in its order: also over connections given up meanwhile, as a
// network may deliver late.
func (l *Link) Heal() { l.heal(false) }

// HealDropping is Heal, but what was held is lost.
func (l *Link) HealDropping() { l.heal(true) }

func (l *Link) heal(drop bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = 0
	for p := range l.pipes {
		if drop {
			p.up.discard()
			p.down.discard()
		}
		p.hold(0)
	}
}

// Kill closes the present connections, as a reset does: both sides see it at once. A new one can be made.
func (l *Link) Kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pipes {
		p.close()
	}
}

// Down refuses (or accepts again) new connections; present ones stay.
func (l *Link) Down(refuse bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

// Close closes the link for good and returns when nothing of it runs any more.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	for p := range l.pipes {
		p.close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// Filter has f decide about each frame, both ways, until remove is called; with several filters the first verdict that is not
// Pass counts, in no given order.
func (l *Link) Filter(f Filter) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nextID++
	id := l.nextID
	l.filters[id] = f
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.filters, id)
	}
}

// DropAcks makes the next n acknowledgements of stored JetStream messages vanish: the writes land, nobody hears of it.
func (l *Link) DropAcks(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropAcks = n
}

// DropHints makes the republished keys of quorate buckets vanish, or lets them through again.
func (l *Link) DropHints(drop bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropHints = drop
}

func (l *Link) judge(f *Frame) Verdict {
	l.mu.Lock()
	if l.dropAcks > 0 && f.IsAck() {
		l.dropAcks--
		l.mu.Unlock()
		return Drop
	}
	if l.dropHints && f.IsHint() {
		l.mu.Unlock()
		return Drop
	}
	filters := make([]Filter, 0, len(l.filters))
	for _, fn := range l.filters {
		filters = append(filters, fn)
	}
	l.mu.Unlock()
	for _, fn := range filters {
		if v := fn(f); v != Pass {
			return v
		}
	}
	return Pass
}

// A pipe is one connection over a link.
type pipe struct {
	link           *Link
	client, server net.Conn
	up, down       *lane

	mu       sync.Mutex
	requests map[string]string // reply subject to request subject
}

func (p *pipe) hold(d Direction) {
	p.up.hold(d&ToServer != 0)
	p.down.hold(d&ToClient != 0)
}

// close breaks both ends. The link's lock is held.
func (p *pipe) close() {
	delete(p.link.pipes, p)
	p.client.Close()
	p.server.Close()
	p.up.stop()
	p.down.stop()
}

// read takes frames from one side and puts them on the lane to the other.
func (p *pipe) read(from net.Conn, to *lane) {
	r := bufio.NewReaderSize(from, 4<<10)
	for {
		f, err := readFrame(r, to.dir)
		if err != nil {
			// The end travels like a frame: a link that is cut holds it too.
			to.push(nil)
			break
		}
		p.match(f)
		switch v := p.link.judge(f); {
		case v.drop:
		case v.delay > 0:
			to.later(v.delay, f.raw)
		default:
			to.push(f.raw)
		}
	}
	// Bytes that nobody can be sent any more are of no use; the writer ends with its own side.
	<-to.done
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	p.close()
}

// match remembers who was asked on which reply subject.
func (p *pipe) match(f *Frame) {
	if !f.IsMessage() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.Dir == ToServer {
		if f.Reply != "" {
			if len(p.requests) > 1<<14 {
				clear(p.requests) // requests that were never answered
			}
			p.requests[f.Reply] = f.Subject
		}
		return
	}
	f.Answers = p.requests[f.Subject]
	delete(p.requests, f.Subject)
}

// A lane is one direction of a pipe: an unbounded queue, so that nobody's write blocks while it is held.
type lane struct {
	dir  Direction
	to   net.Conn
	done chan struct{} // closed when the writer has ended

	mu      sync.Mutex
	cond    *sync.Cond
	queue   [][]byte // nil: the end
	held    bool
	stopped bool
	timers  map[*time.Timer]struct{}
}

func newLane(d Direction, to net.Conn) *lane {
	l := &lane{dir: d, to: to, done: make(chan struct{}), timers: map[*time.Timer]struct{}{}}
	l.cond = sync.NewCond(&l.mu)
	return l
}

func (l *lane) push(raw []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, raw)
	l.cond.Signal()
}

func (l *lane) later(d time.Duration, raw []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		l.mu.Lock()
		delete(l.timers, t)
		l.mu.Unlock()
		l.push(raw)
	})
	l.timers[t] = struct{}{}
}

func (l *lane) hold(held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	l.cond.Signal()
}

// discard forgets what is held, but not the end.
func (l *lane) discard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var kept [][]byte
	for _, raw := range l.queue {
		if raw == nil {
			kept = append(kept, nil)
		}
	}
	l.queue = kept
}

func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for t := range l.timers {
		t.Stop()
	}
	clear(l.timers)
	l.cond.Signal()
}

func (l *lane) write() {
	defer close(l.done)
	for {
		l.mu.Lock()
		for !l.stopped && (l.held || len(l.queue) == 0) {
			l.cond.Wait()
		}
		if l.stopped {
			l.mu.Unlock()
			return
		}
		raw := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		l.mu.Unlock()
		if raw == nil {
			return
		}
		if _, err := l.to.Write(raw); err != nil {
			return
		}
	}
}

// maxFrame bounds a payload that is read: nats-server's default is 1 MiB.
const maxFrame = 64 << 20

// readFrame reads one operation.
func readFrame(r *bufio.Reader, dir Direction) (*Frame, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	args := strings.Fields(string(line))
	f := &Frame{Dir: dir, raw: line}
	if len(args) == 0 {
		return f, nil
	}
	f.Verb = strings.ToUpper(args[0])
	args = args[1:]
	var total, head int
	switch f.Verb {
	case "PUB": // subject [reply] size
		total, err = f.names(args, 0, 1)
	case "MSG": // subject sid [reply] size
		total, err = f.names(args, 1, 1)
	case "HPUB": // subject [reply] header-size size
		total, err = f.names(args, 0, 2)
	case "HMSG": // subject sid [reply] header-size size
		total, err = f.names(args, 1, 2)
	case "SUB":
		if len(args) > 0 {
			f.Subject = args[0]
		}
		return f, nil
	default:
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("testenv: frame %q: %w", line, err)
	}
	if f.Verb[0] == 'H' {
		if head, err = strconv.Atoi(args[len(args)-2]); err != nil || head < 0 || head > total {
			return nil, fmt.Errorf("testenv: frame %q: header size", line)
		}
	}
	raw := make([]byte, len(line)+total+2)
	copy(raw, line)
	if _, err := io.ReadFull(r, raw[len(line):]); err != nil {
		return nil, err
	}
	f.raw = raw
	body := raw[len(line) : len(raw)-2]
	f.Header, f.Payload = body[:head], body[head:]
	return f, nil
}

// names reads the subject, skips sid, reads the reply subject if there is one, and returns the total size.
func (f *Frame) names(args []string, skip, sizes int) (int, error) {
	n := len(args) - skip - sizes
	if n != 1 && n != 2 {
		return 0, errors.New("arguments")
	}
	f.Subject = args[0]
	if n == 2 {
		f.Reply = args[1+skip]
	}
	total, err := strconv.Atoi(args[len(args)-1])
	if err != nil || total < 0 || total > maxFrame {
		return 0, errors.New("size")
	}
	return total, nil
}
