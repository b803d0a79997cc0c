package kv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// A Store is one process's handle on the bucket of a namespace. See the package documentation.
type Store struct {
	nc    *nats.Conn
	o     Options
	log   *slog.Logger
	clock clock.Source

	bucket, stream string
	api            string // prefix of the JetStream API, with the domain and a dot at its end
	put            string // prefix that a key's subject is published under (R37); "" without a domain
	subject        string // prefix of a key's subject, as the stream knows it
	inbox          string // prefix of the connection's reply subjects

	seen atomic.Uint64 // highest sequence seen in this attachment, in any acknowledgement, answer or hint
	ever atomic.Uint64 // the same over all attachments

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	kick   chan struct{} // asks for a rebirth check

	connClosed chan struct{} // closed when the connection was closed for good
	hub        hub

	reattach chan struct{} // holds one token: one Reattach at a time

	mu      sync.Mutex
	created time.Time
	epoch   uint64
	lost    chan struct{} // closed when this attachment is lost
	cause   error         // why it is lost; nil while it is not
	reborn  bool          // another bucket, or a lower sequence, has been seen: absence proves nothing any more (design 4.1)
	closed  bool
}

// prepare makes a Store that can make calls, and refuses servers that cannot serve it.
func prepare(ctx context.Context, nc *nats.Conn, o Options) (*Store, error) {
	if nc == nil {
		return nil, errors.New("kv: no connection: pass a connected *nats.Conn")
	}
	o.Namespace = cmp.Or(o.Namespace, wire.DefaultName)
	if err := wire.CheckNamespace(o.Namespace); err != nil {
		return nil, fmt.Errorf("kv: %w", err)
	}
	if strings.ContainsAny(o.Domain, ".*> \t\r\n") {
		return nil, fmt.Errorf("kv: JetStream domain %q: may not contain '.', '*', '>' or spaces", o.Domain)
	}
	o.Reconcile = cmp.Or(o.Reconcile, 500*time.Millisecond)
	o.Timeout = cmp.Or(o.Timeout, 500*time.Millisecond)
	if o.Reconcile < 0 || o.Timeout < 0 || o.Replicas < 0 {
		return nil, fmt.Errorf("kv: reconcile %v, timeout %v and replicas %d may not be negative", o.Reconcile, o.Timeout, o.Replicas)
	}
	s := &Store{nc: nc, o: o, log: o.Logger, clock: o.Clock,
		bucket: wire.Bucket(o.Namespace), stream: wire.Stream(o.Namespace), api: "$JS.API.",
		subject: wire.KVSubject(o.Namespace, ""), kick: make(chan struct{}, 1), reattach: make(chan struct{}, 1)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.clock == nil {
		s.clock = clock.Now
	}
	if o.Domain != "" {
		s.api = "$JS." + o.Domain + ".API."
		s.put = s.api
	}
	s.inbox = cmp.Or(nc.Opts.InboxPrefix, strings.TrimSuffix(nats.InboxPrefix, "."))
	if err := s.checkConn(ctx); err != nil {
		return nil, fmt.Errorf("kv: %w", err)
	}
	return s, nil
}

// prepareServer is prepare, and asks the server that serves JetStream too.
func prepareServer(ctx context.Context, nc *nats.Conn, o Options) (*Store, error) {
	s, err := prepare(ctx, nc, o)
	if err != nil {
		return nil, err
	}
	if err := s.checkServer(ctx); err != nil {
		return nil, fmt.Errorf("kv: %w", err)
	}
	return s, nil
}

// Open attaches to the namespace's bucket on a connection that its user keeps (it is never closed or given handlers here), and
// makes the bucket when there is none. While a cluster has no leader it tries again until ctx ends; everything that does not
// pass by itself is returned at once: ErrNoJetStream, ErrOldServer, ErrBucket, ErrBucketMissing, ErrPermission.
func Open(ctx context.Context, nc *nats.Conn, o Options) (*Store, error) {
	s, err := prepare(ctx, nc, o)
	if err != nil {
		return nil, err
	}
	info, err := s.attachAtOnce(ctx)
	if err == nil && info == nil { // made first, or looked into
		if err = s.checkServer(ctx); err == nil {
			info, err = s.attach(ctx, s.o.AttachOnly)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kv: %w", err)
	}
	s.created, s.epoch, s.lost, s.connClosed = info.Created, 1, make(chan struct{}), make(chan struct{})
	s.note(info.State.LastSeq)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.hub.start(s)
	// One channel each: a connection that flaps fills the first, and what does not fit is not told.
	connected, closed := nc.StatusChanged(nats.CONNECTED), nc.StatusChanged(nats.CLOSED)
	s.wg.Go(func() { s.run(connected, closed) })
	return s, nil
}

// checkConn wants a connection to a new enough server (R10).
func (s *Store) checkConn(ctx context.Context) error {
	for !s.nc.IsConnected() {
		if s.nc.IsClosed() {
			return nats.ErrConnectionClosed
		}
		// The connection may have been made with RetryOnFailedConnect: what counts is the server it finds.
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("not connected to %s: %w", s.nc.ConnectedUrlRedacted(), err)
		}
	}
	return checkVersion(s.nc.ConnectedServerVersion())
}

// checkServer wants a new enough server with JetStream for the account (R10).
func (s *Store) checkServer(ctx context.Context) error {
	if err := s.checkConn(ctx); err != nil {
		return err
	}
	for try := 0; ; try++ {
		var acc accountInfo
		err := s.patiently(ctx, s.api+"INFO", func(ctx context.Context) error {
			ctx, cancel := briefly(ctx, try)
			defer cancel()
			return s.call(ctx, "INFO", nil, &acc)
		})
		switch {
		case err == nil && acc.API.Level < MinAPILevel:
			// The server that serves JetStream can be another one than the connected: behind a leaf node, in a mixed cluster.
			return fmt.Errorf("%w: found JetStream API level %d, need %d (%s)", ErrOldServer, acc.API.Level, MinAPILevel, MinServer)
		case err == nil:
			return nil
		case hasCode(err, codeNotEnabled, codeNotEnabledForAcc):
			return fmt.Errorf("%w: %w; %s", ErrNoJetStream, err, s.jetStreamHint())
		case errors.Is(err, nats.ErrNoResponders) && try >= 2:
			// A few tries, for a server tells no difference between no JetStream and JetStream that starts.
			return fmt.Errorf("%w: nobody answers on %sINFO; %s", ErrNoJetStream, s.api, s.jetStreamHint())
		case !transient(err):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("JetStream does not answer on %sINFO: %w", s.api, err)
		}
		if serr := sleep(ctx, backoff(try)); serr != nil {
			return fmt.Errorf("JetStream does not answer on %sINFO: %w", s.api, cmp.Or(err, serr))
		}
	}
}

func (s *Store) jetStreamHint() string {
	if s.o.Domain != "" {
		return fmt.Sprintf("is the JetStream domain %q right, and JetStream on for this account there?", s.o.Domain)
	}
	return "start the NATS server with JetStream (-js) and enable it for this account, or name its domain"
}

// Namespace is the namespace's name.
func (s *Store) Namespace() string { return s.o.Namespace }

// Bucket is the name of the namespace's bucket.
func (s *Store) Bucket() string { return s.bucket }

// ConnClosed is closed when the connection was closed for good. Loops with deadlines ask this and never the connection itself,
// which holds its lock while it dials: for a second and more when a server has stopped.
func (s *Store) ConnClosed() <-chan struct{} { return s.connClosed }

// Conn is the connection that was given to [Open].
func (s *Store) Conn() *nats.Conn { return s.nc }

// Now reads the store's clock.
func (s *Store) Now() clock.Instant { return s.clock() }

// Seen is the highest sequence of the bucket that this store has seen in its present attachment.
func (s *Store) Seen() uint64 { return s.seen.Load() }

// note remembers a sequence of the bucket.
func (s *Store) note(seq uint64) {
	raise(&s.seen, seq)
	raise(&s.ever, seq)
}

func raise(a *atomic.Uint64, v uint64) {
	for {
		old := a.Load()
		if v <= old || a.CompareAndSwap(old, v) {
			return
		}
	}
}

// ready returns why no operation may start, or the present attachment.
func (s *Store) ready(epoch uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, ErrClosed
	case s.cause != nil:
		return 0, s.cause
	case epoch != 0 && epoch != s.epoch:
		return 0, fmt.Errorf("%w: bucket %s has been attached to again", ErrBucketLost, s.bucket)
	}
	return s.epoch, nil
}

// Do makes one attempt at one compare-and-set (L4). With Yes it returns the write's revision and no error. With No and Unknown
// the error says why, for logs; Unknown is to be settled by [Store.Read] and the nonce in the record. An error that is
// ErrNotSent promises that this write has not landed and will not. The attempt ends after Options.Timeout or with ctx.
func (s *Store) Do(ctx context.Context, w Write) (uint64, Outcome, error) {
	rev, out, err := s.do(ctx, w)
	if err != nil {
		verb := "write"
		if w.Purge {
			verb = "purge"
		}
		err = fmt.Errorf("kv: %s %s at %d: %w", verb, w.Key, w.Expected, err)
	}
	return rev, out, err
}

func (s *Store) do(ctx context.Context, w Write) (uint64, Outcome, error) {
	epoch, err := s.ready(w.Epoch)
	if err != nil {
		return 0, Unknown, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if w.Key == "" || w.Purge && len(w.Value) > 0 || w.TTL < 0 {
		return 0, Unknown, fmt.Errorf("%w: not a write: key %q, purge %t with %d bytes, TTL %v", ErrNotSent, w.Key, w.Purge, len(w.Value), w.TTL)
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if ctx.Err() != nil {
		return 0, Unknown, fmt.Errorf("%w: %w", ErrNotSent, ctx.Err())
	}
	if s.nc.IsClosed() {
		return 0, Unknown, fmt.Errorf("%w: %w", ErrNotSent, nats.ErrConnectionClosed) // later it may be said to a write on its way, too
	}
	msg := s.message(w)
	answer, err := s.nc.RequestMsgWithContext(ctx, msg)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		// Nobody serves the subject: the stream has no leader at this moment, or is gone.
		s.check()
		return 0, Unknown, fmt.Errorf("%w: %w", ErrNotSent, err)
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrMaxPayload),
		errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrHeadersNotSupported), errors.Is(err, nats.ErrConnectionDraining):
		return 0, Unknown, fmt.Errorf("%w: %w", ErrNotSent, err)
	case err != nil:
		return 0, Unknown, s.denied(msg.Subject, err)
	}
	var ack struct {
		Stream string    `json:"stream"`
		Seq    uint64    `json:"seq"`
		Error  *apiError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return 0, Unknown, fmt.Errorf("answer does not decode: %w", err)
	}
	if ack.Error != nil {
		switch ack.Error.ErrCode {
		case codeWrongLastSeq:
			return 0, No, ack.Error
		case codeStreamNotFound:
			s.check()
		}
		// Also 10164, 'another write in flight': no proof that somebody else won (R5).
		return 0, Unknown, ack.Error
	}
	if ack.Stream != s.stream || ack.Seq == 0 {
		return 0, Unknown, fmt.Errorf("acknowledged by stream %q as %d, not by %s", ack.Stream, ack.Seq, s.stream)
	}
	if _, err := s.ready(epoch); err != nil {
		return 0, Unknown, err // acknowledged, but nobody knows by which bucket
	}
	s.note(ack.Seq)
	return ack.Seq, Yes, nil
}

// Headers that quorate sets or reads.
const (
	headerExpected  = "Nats-Expected-Last-Subject-Sequence"
	headerStream    = "Nats-Expected-Stream"
	headerTTL       = "Nats-TTL"
	headerRollup    = "Nats-Rollup"
	headerOperation = "KV-Operation"
	headerMarker    = "Nats-Marker-Reason"

	operationPurge  = "PURGE"
	operationDelete = "DEL"
)

// message makes the raw publish of a write: nats.go's Update would drop the TTL (R9) and its Create writes over markers.
func (s *Store) message(w Write) *nats.Msg {
	h := nats.Header{
		headerExpected: {strconv.FormatUint(w.Expected, 10)}, // R8: there is no unconditional write
		headerStream:   {s.stream},
	}
	if w.TTL > 0 {
		h[headerTTL] = []string{strconv.FormatInt(int64((w.TTL+time.Second-1)/time.Second), 10)} // fractions would be cut off
	}
	if w.Purge {
		h[headerOperation] = []string{operationPurge}
		h[headerRollup] = []string{"sub"}
		if w.Reason != "" {
			h[wire.HeaderReason] = []string{w.Reason}
		}
		if w.Nonce != "" {
			h[wire.HeaderNonce] = []string{w.Nonce}
		}
		if w.Token != 0 {
			h[wire.HeaderToken] = []string{strconv.FormatUint(w.Token, 10)}
		}
		if w.Inc != 0 {
			h[wire.HeaderInc] = []string{strconv.FormatUint(w.Inc, 10)}
		}
		if w.Next != "" {
			h[wire.HeaderNext] = []string{w.Next}
		}
		if w.Queue != nil {
			h[wire.HeaderQueue] = []string{strings.Join(w.Queue, ",")}
		}
	}
	return &nats.Msg{Subject: s.put + s.subject + w.Key, Header: h, Data: w.Value}
}

// entry makes the Entry of a message's headers and value.
func (s *Store) entry(key string, rev uint64, h nats.Header, data []byte) Entry {
	e := Entry{Key: key, Op: Record, Revision: rev, Value: data, Seen: s.clock()}
	if len(h) == 0 {
		return e
	}
	e.Replaced = number(h[headerExpected])
	op := h.Get(headerOperation)
	reason := h.Get(headerMarker)
	// A marker is a deletion whatever its body is (R18).
	if op == operationPurge || op == operationDelete || reason != "" {
		e.Op = Marker
		e.Value = nil
		e.Reason = cmp.Or(reason, h.Get(wire.HeaderReason))
		e.Nonce = h.Get(wire.HeaderNonce)
		e.Token = number(h[wire.HeaderToken])
		e.Inc = number(h[wire.HeaderInc])
		e.Next = h.Get(wire.HeaderNext)
		e.Queue = names(h[wire.HeaderQueue])
	}
	return e
}

// names reads a list of ids with commas between them; nil is what says nothing: no list, or one that nobody of quorate's has written.
func names(vs []string) []string {
	if len(vs) != 1 {
		return nil
	}
	if vs[0] == "" {
		return []string{}
	}
	ids := strings.Split(vs[0], ",")
	if len(ids) > wire.MaxNext {
		return nil
	}
	for _, id := range ids {
		if wire.CheckID(id) != nil {
			return nil
		}
	}
	return ids
}

// number reads the last value of a header: the server appends its own to those a publisher may have forged.
func number(vs []string) uint64 {
	if len(vs) == 0 {
		return 0
	}
	n, err := strconv.ParseUint(vs[len(vs)-1], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Read asks the stream's leader for what is stored under a key, never a replica (R15). The answer may still be old across a
// change of that leader: one older than a revision already seen proves nothing. It takes at most Options.Timeout, or as long as ctx with Options.Patient.
func (s *Store) Read(ctx context.Context, key string) (Entry, error) {
	e, err := s.read(ctx, key, false)
	if err != nil {
		return Entry{}, fmt.Errorf("kv: read %s: %w", key, err)
	}
	return e, nil
}

// ReadNew is [Store.Read] of a key that may well never have been there. It first asks what shows an absence, which a Read asks last: one round trip less
// if there is nothing, one more if there is something.
func (s *Store) ReadNew(ctx context.Context, key string) (Entry, error) {
	e, err := s.read(ctx, key, true)
	if err != nil {
		return Entry{}, fmt.Errorf("kv: read %s: %w", key, err)
	}
	return e, nil
}

// Peek is [Store.Read] for whom an absence needs no proof, as what is written next expects nothing there: one request. An entry with Op None is never Vacant.
func (s *Store) Peek(ctx context.Context, key string) (Entry, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	epoch, err := s.ready(0)
	var e Entry
	var found bool
	if err == nil {
		e, found, err = s.last(ctx, key)
	}
	if err == nil {
		_, err = s.ready(epoch)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("kv: read %s: %w", key, err)
	}
	if !found {
		e = Entry{Key: key, Op: None, Seen: s.clock()}
	}
	e.Epoch = epoch
	return e, nil
}

// last gets what stands under a key.
func (s *Store) last(ctx context.Context, key string) (Entry, bool, error) {
	return s.message1(ctx, struct {
		Last string `json:"last_by_subj"`
	}{s.subject + key})
}

// bounded bounds a read as a whole, unless it is asked again until ctx ends.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.o.Patient {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.o.Timeout)
}

func (s *Store) read(ctx context.Context, key string, unlikely bool) (Entry, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	tries := 3
	if unlikely {
		tries++ // the first one asks less
	}
	for range tries {
		epoch, err := s.ready(0)
		if err != nil {
			return Entry{}, err
		}
		var e Entry
		found := false
		if !unlikely {
			if e, found, err = s.last(ctx, key); err != nil {
				return Entry{}, err
			}
		}
		if !found {
			// An answer that shows the key, the bucket and its last sequence together: two could come from two leaders.
			unlikely = false
			before := s.seen.Load()
			info, err := s.info(ctx, s.subject+key)
			if err != nil {
				s.suspect(err)
				return Entry{}, err
			}
			if len(info.State.Subjects) > 0 {
				continue // written in between, or the first answer was old
			}
			e = Entry{Key: key, Op: None, Seen: s.clock(), Vacant: s.observe(info, before) && !s.wasReborn()}
		}
		if _, err := s.ready(epoch); err != nil {
			return Entry{}, err
		}
		e.Epoch = epoch
		return e, nil
	}
	return Entry{}, errors.New("answers contradict each other: a stream leader is out of date")
}

// message1 gets one message from the stream's leader.
func (s *Store) message1(ctx context.Context, req any) (Entry, bool, error) {
	var m storedMessage
	err := s.call(ctx, "STREAM.MSG.GET."+s.stream, req, &m)
	switch {
	case hasCode(err, codeNoMessage):
		return Entry{}, false, nil
	case err != nil:
		s.suspect(err)
		return Entry{}, false, err
	}
	e, err := s.stored(m)
	return e, err == nil, err
}

// stored reads a message of the stream.
func (s *Store) stored(m storedMessage) (Entry, error) {
	if m.Message == nil {
		return Entry{}, errors.New("answer without a message")
	}
	var h nats.Header
	if len(m.Message.Header) > 0 {
		var err error
		if h, err = nats.DecodeHeadersMsg(m.Message.Header); err != nil {
			return Entry{}, fmt.Errorf("headers of %s do not decode: %w", m.Message.Subject, err)
		}
	}
	key, ok := strings.CutPrefix(m.Message.Subject, s.subject)
	if !ok || m.Message.Seq == 0 || m.Message.Seq >= wire.MaxToken {
		return Entry{}, fmt.Errorf("answer with subject %q and sequence %d, which is not of bucket %s", m.Message.Subject, m.Message.Seq, s.bucket)
	}
	s.note(m.Message.Seq)
	e := s.entry(key, m.Message.Seq, h, m.Message.Data)
	e.Stored = m.Message.Time
	return e, nil
}

// A snapshot is what a pattern's keys held, each at a moment not before the one that last belongs to.
type snapshot struct {
	entries []Entry
	last    uint64 // sequence of the bucket when the set of keys was taken: a key not in it was absent then
	fresh   bool   // no sequence above last had been seen before the snapshot was begun
}

// List reads every key that matches a subject pattern ("member.workers.*"), markers included, in the order of the keys.
// The set of keys is of one moment, each entry of that moment or later. It takes one request and one for each key.
func (s *Store) List(ctx context.Context, pattern string) ([]Entry, error) {
	snap, err := s.list(ctx, pattern)
	if err != nil {
		return nil, fmt.Errorf("kv: list %s: %w", pattern, err)
	}
	return snap.entries, nil
}

// listWorkers bounds how many reads of one List are under way: a server's queue of API requests is finite and drops all of
// it when it overflows.
const listWorkers = 8

func (s *Store) list(ctx context.Context, pattern string) (*snapshot, error) {
	keys, snap, err := s.keys(ctx, pattern)
	if err != nil {
		return nil, err
	}
	epoch, err := s.ready(0)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, len(keys))
	errs := make([]error, min(listWorkers, len(keys)))
	var next atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for w := range errs {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(keys) {
					return
				}
				e, _, err := s.last(ctx, keys[i])
				if err != nil {
					errs[w] = err
					cancel()
					return
				}
				entries[i] = e // zero when it has vanished since
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := s.ready(epoch); err != nil {
		return nil, err
	}
	snap.entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.Op == None })
	for i := range snap.entries {
		snap.entries[i].Epoch = epoch
	}
	return snap, nil
}

// keys reads which keys match a pattern, sorted.
func (s *Store) keys(ctx context.Context, pattern string) ([]string, *snapshot, error) {
	if _, err := s.ready(0); err != nil {
		return nil, nil, err
	}
	before := s.seen.Load()
	info, err := s.info(ctx, s.subject+pattern)
	if err != nil {
		s.suspect(err)
		return nil, nil, err
	}
	fresh := s.observe(info, before)
	if _, err := s.ready(0); err != nil {
		return nil, nil, err
	}
	keys := slices.Sorted(maps.Keys(info.State.Subjects))
	for i, k := range keys {
		keys[i] = strings.TrimPrefix(k, s.subject)
	}
	return keys, &snapshot{last: info.State.LastSeq, fresh: fresh}, nil
}

// next reads the first message of a pattern at or after a sequence.
func (s *Store) next(ctx context.Context, pattern string, from uint64) (Entry, bool, error) {
	epoch, err := s.ready(0)
	if err != nil {
		return Entry{}, false, err
	}
	e, ok, err := s.message1(ctx, struct {
		Seq  uint64 `json:"seq"`
		Next string `json:"next_by_subj"`
	}{from, s.subject + pattern})
	if err == nil {
		_, err = s.ready(epoch)
	}
	e.Epoch = epoch
	return e, ok, err
}

// State asks the stream's leader about the bucket.
func (s *Store) State(ctx context.Context) (State, error) {
	if _, err := s.ready(0); err != nil {
		return State{}, fmt.Errorf("kv: state of %s: %w", s.bucket, err)
	}
	before := s.seen.Load()
	info, err := s.info(ctx, "")
	if err != nil {
		s.suspect(err)
		return State{}, fmt.Errorf("kv: state of %s: %w", s.bucket, err)
	}
	s.observe(info, before)
	if _, err := s.ready(0); err != nil {
		return State{}, fmt.Errorf("kv: state of %s: %w", s.bucket, err)
	}
	return info.state(), nil
}

// Close ends all watches and hints and returns when nothing of the store runs any more. The connection stays open.
func (s *Store) Close() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if first {
		s.cancel()
	}
	s.wg.Wait()
}

// start runs fn on a goroutine that Close waits for, unless Close has been called.
func (s *Store) start(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(fn)
	return true
}

// sleep waits, unless the context ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// briefly bounds a question at start-up: 100 ms, doubling. Servers without a leader drop what they are asked, and may have one a moment later: a client that
// came before would wait for an answer that nobody gives.
func briefly(ctx context.Context, try int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 100*time.Millisecond<<min(try, 10))
}

// backoff is how long to wait after the given try: 25 ms, doubling to half a second, plus or minus a quarter.
func backoff(try int) time.Duration {
	return jitter(min(25*time.Millisecond<<min(try, 10), 500*time.Millisecond), 4)
}

// jitter spreads a period by one part in n to either side, so that processes that began together drift apart (R20).
func jitter(d time.Duration, n int) time.Duration {
	if d <= 0 {
		return 0
	}
	part := max(int64(d)/int64(n), 1)
	return d - time.Duration(part) + time.Duration(rand.Int64N(2*part))
}
