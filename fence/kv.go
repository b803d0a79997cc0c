package fence

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/quorate/quorate/internal/wire"
)

// KVConfig of a [KV]. The zero value works.
type KVConfig struct {
	// Timeout bounds one call, all its tries together. Default 5 s. A shorter one gives up sooner on a server that is away, and
	// leaves more writes unknown.
	Timeout time.Duration
	// Attempt bounds one request. Default a fifth of Timeout. Longer than a round trip to the server, or it only makes traffic.
	Attempt time.Duration
	// Conflicts is how many writers of the same or an older token may come first, one after the other, before a Put or Delete gives up with
	// [ErrConflict]. Default 32.
	Conflicts int
	// Forgets accepts a bucket that drops records by itself (TTL, or a limit that discards old ones): the tokens go with them, and
	// a writer that stood still for longer is not kept out. Default false: such a bucket is refused.
	Forgets bool
}

// A KV guards the records of one JetStream key-value bucket by fencing tokens. The token travels in a header of the record, so
// ordinary readers (Get, Watch, the nats command) see the plain value. Make it with [NewKV].
type KV struct {
	nc     *nats.Conn
	bucket string
	stream string
	api    string // prefix of the JetStream API, with the dot at its end
	put    string // prefix that a key is published under
	name   string // prefix of a key's subject, as the stream knows it
	cfg    KVConfig
}

// A Record is what stands under a key.
type Record struct {
	Key      string
	Value    []byte
	Token    uint64    // of its writer; 0: written without one
	Revision uint64    // 0: nothing was ever written
	Stored   time.Time // by the server's clock, for display
	Deleted  bool      // a delete stands there, with its token

	nonce    string // which write this is
	replaced string // the revision it replaced, as its writer demanded it; "" when it demanded none
}

// NewKV makes the guard of a bucket that exists. It asks for the bucket's configuration and refuses one that would forget
// tokens. The JetStream domain or API prefix is that of js.
//
// Permissions: request on STREAM.INFO and STREAM.MSG.GET of the bucket's stream, publish on its keys.
func NewKV(ctx context.Context, js jetstream.JetStream, bucket string, cfg KVConfig) (*KV, error) {
	fail := func(err error) (*KV, error) { return nil, fmt.Errorf("fence: bucket %q: %w", bucket, err) }
	if cfg.Timeout < 0 || cfg.Attempt < 0 || cfg.Conflicts < 0 {
		return fail(errors.New("timeout, attempt and conflicts cannot be negative"))
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	cfg.Attempt = cmp.Or(cfg.Attempt, cfg.Timeout/5)
	cfg.Conflicts = cmp.Or(cfg.Conflicts, 32)
	g := &KV{nc: js.Conn(), bucket: bucket, stream: "KV_" + bucket, name: "$KV." + bucket + ".", cfg: cfg}
	o := js.Options()
	// As nats.go does it: with a domain or prefix of one's own, writes go through it too (R37).
	switch {
	case o.Domain != "":
		g.api = "$JS." + o.Domain + ".API."
		g.put = g.api
	case o.APIPrefix != "" && strings.TrimSuffix(o.APIPrefix, ".")+"." != jetstream.DefaultAPIPrefix:
		g.api = strings.TrimSuffix(o.APIPrefix, ".") + "."
		g.put = g.api
	default:
		g.api = jetstream.DefaultAPIPrefix
	}
	s, err := js.Stream(ctx, g.stream)
	if err != nil {
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			err = jetstream.ErrBucketNotFound
		}
		return fail(err)
	}
	c := s.CachedInfo().Config
	switch {
	case c.Mirror != nil:
		return fail(errors.New("is a mirror, which takes no writes: guard the bucket it mirrors"))
	case c.MaxMsgsPerSubject == 0 || len(c.Subjects) != 1 || c.Subjects[0] != g.name+">":
		return fail(fmt.Errorf("stream %s is not a key-value bucket", g.stream))
	case !cfg.Forgets && c.MaxAge != 0:
		return fail(fmt.Errorf("has a TTL of %v: with a record its token goes. Use one without, or set Forgets", c.MaxAge))
	case !cfg.Forgets && c.Discard == jetstream.DiscardOld && (c.MaxBytes > 0 || c.MaxMsgs > 0):
		return fail(errors.New("drops old records when it is full, and their tokens. Use one with discard policy new, or set Forgets"))
	}
	return g, nil
}

// Put writes a record and returns its revision. It is refused with [ErrStale] when the record that stands there, or the delete, has a
// newer token.
func (g *KV) Put(ctx context.Context, key string, value []byte, h Holder) (uint64, error) {
	return g.write(ctx, write{verb: "put", key: key, value: value, holder: h})
}

// Update is [KV.Put] that demands that nobody has written since the given revision ([Record.Revision]; 0: nothing was ever
// written), also nobody with the same token: else [ErrConflict]. It is for values that depend on what was read.
func (g *KV) Update(ctx context.Context, key string, value []byte, revision uint64, h Holder) (uint64, error) {
	return g.write(ctx, write{verb: "update", key: key, value: value, holder: h, at: &revision})
}

// Delete deletes a record, as a KV's Delete does, and returns the revision of what it leaves: a marker that keeps the token, so
// that an older writer does not come back after it. Deleting what is not there leaves the marker too.
func (g *KV) Delete(ctx context.Context, key string, h Holder) (uint64, error) {
	return g.write(ctx, write{verb: "delete", key: key, deletes: true, holder: h})
}

// Get reads a record from the stream's leader, never from a replica. With [ErrNotFound] the Record still tells the token and
// revision of a delete. An answer may be old for the moment in which a cluster changes the stream's leader: what hangs on it
// belongs into an [KV.Update].
func (g *KV) Get(ctx context.Context, key string) (Record, error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	for try := 0; ; try++ {
		r, err := g.read(ctx, key)
		switch {
		case err == nil && (r.Deleted || r.Revision == 0):
			return r, g.fail("get", key, ErrNotFound)
		case err == nil:
			return r, nil
		case !passes(err) || wait(ctx, try) != nil:
			return Record{}, g.fail("get", key, err)
		}
	}
}

func (g *KV) fail(verb, key string, err error) error {
	return fmt.Errorf("fence: %s %s of bucket %s: %w", verb, key, g.bucket, err)
}

// A write is one call of Put, Update or Delete.
type write struct {
	verb    string
	key     string
	value   []byte
	deletes bool
	holder  Holder
	at      *uint64 // the revision that the caller demands

	nonce    string // names this write in its record
	expected uint64 // the revision that it was sent to replace
}

// write does one guarded write. Whatever happens it lands at most once: all its tries demand the same revision until a read has shown that none
// of them has landed or ever will (L4).
func (g *KV) write(ctx context.Context, w write) (uint64, error) {
	fail := func(err error) (uint64, error) { return 0, g.fail(w.verb, w.key, err) }
	if err := checkKey(w.key); err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	w.nonce = nuid.Next()
	var open error // why a try that was sent may have landed, or may still; nil when none
	conflicts := 0
	for try := 0; ; try++ {
		if err := check(w.holder); err != nil && open == nil {
			return fail(err)
		} else if err != nil { // F3: what was sent cannot be taken back, but nothing more is sent
			return fail(fmt.Errorf("%w: %w; %w", ErrUnknown, open, err))
		}
		// A read that fails says nothing about the write before it.
		cur, err := g.read(ctx, w.key)
		if err != nil {
			if passes(err) && wait(ctx, try) == nil {
				continue
			}
			if open != nil {
				err = fmt.Errorf("%w: %w", ErrUnknown, open)
			}
			return fail(err)
		}
		if open != nil {
			rev, s, err := g.settle(ctx, &w, cur)
			switch {
			case err == nil && s == landed:
				return rev, nil
			case err == nil && s == gone:
				return fail(fmt.Errorf("%w: %w; the record has been written again since, with token %d", ErrUnknown, open, cur.Token))
			case err == nil && s == never:
				open = nil
			case wait(ctx, try) != nil: // pending, or not to be told yet
				return fail(fmt.Errorf("%w: %w", ErrUnknown, open))
			}
		}
		if open == nil {
			// The answer of a leader just deposed may be old. Then the record's token is at least this one: the refusal is right. And a
			// write on an old revision is refused by the stream.
			if cur.Token > w.holder.Token() {
				return fail(&StaleError{What: w.key, Token: w.holder.Token(), Newer: cur.Token})
			}
			if w.at != nil && *w.at != cur.Revision {
				return fail(fmt.Errorf("%w: revision is %d, not %d", ErrConflict, cur.Revision, *w.at))
			}
			w.expected = cur.Revision
		}
		if err := check(w.holder); err != nil && open == nil { // once more: the read may have taken long
			return fail(err)
		} else if err != nil {
			return fail(fmt.Errorf("%w: %w; %w", ErrUnknown, open, err))
		}
		rev, out, err := g.send(ctx, &w)
		switch out {
		case yes:
			return rev, nil
		case unknown:
			open = err
		case no:
			// The stream has refused this try. One before it that was not answered is what may have made it do so: read.
			if conflicts++; open == nil && conflicts > g.cfg.Conflicts {
				return fail(fmt.Errorf("%w: %d came first", ErrConflict, conflicts))
			}
			if hasCode(err, codeWriteInFlight) && wait(ctx, min(try, 2)) != nil && open == nil {
				return fail(err)
			}
		case notSent:
			if passes(err) && wait(ctx, try) == nil {
				continue
			}
			if open != nil {
				err = fmt.Errorf("%w: %w", ErrUnknown, open)
			}
			return fail(err)
		}
		if ctx.Err() != nil && open == nil {
			return fail(context.Cause(ctx))
		}
	}
}

// What a read can tell about an unanswered write.
type settled int

const (
	pending settled = iota // the record is what the write was to replace: it has not landed yet, and may
	landed                 // it is there, or was
	never                  // another replaced what it was to replace: it has not landed and never will
	gone                   // written again since, and nobody can tell whether in between ours was there
)

// settle finds out what became of an unanswered write (R6).
func (g *KV) settle(ctx context.Context, w *write, cur Record) (uint64, settled, error) {
	judge := func(r Record) settled {
		switch {
		case r.nonce == w.nonce:
			return landed
		case w.expected != 0 && r.replaced == strconv.FormatUint(w.expected, 10):
			// Revisions come once: who replaced this very one came in our place. (Revision 0, nothing, can come again: after a purge
			// of the stream.)
			return never
		}
		return gone
	}
	if cur.Revision <= w.expected {
		return 0, pending, nil // lower: an old answer, for the stream never goes back
	}
	s := judge(cur)
	if s == gone {
		// A bucket that keeps a history still has what came right after the revision we were to replace.
		first, err := g.get(ctx, w.key, fmt.Sprintf(`{"seq":%d,"next_by_subj":%q}`, w.expected+1, g.name+w.key))
		if err != nil || first.Revision == 0 {
			return 0, pending, cmp.Or(err, errors.New("answers contradict each other"))
		}
		cur, s = first, judge(first)
	}
	return cur.Revision, s, nil
}

type outcome int

const (
	unknown outcome = iota
	yes
	no      // refused by the stream
	notSent // surely not delivered
)

// send makes one try.
func (g *KV) send(ctx context.Context, w *write) (uint64, outcome, error) {
	switch {
	case ctx.Err() != nil:
		return 0, notSent, context.Cause(ctx)
	case g.nc.IsClosed():
		return 0, notSent, nats.ErrConnectionClosed
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Attempt)
	defer cancel()
	h := nats.Header{
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(w.expected, 10)},
		jetstream.ExpectedStreamHeader:      {g.stream},
		Header:                              {strconv.FormatUint(w.holder.Token(), 10)},
		wire.HeaderNonce:                    {w.nonce},
	}
	if w.deletes {
		h["KV-Operation"] = []string{"DEL"}
	}
	answer, err := g.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: g.put + g.name + w.key, Header: h, Data: w.value})
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrMaxPayload),
		errors.Is(err, nats.ErrHeadersNotSupported), errors.Is(err, nats.ErrConnectionDraining):
		return 0, notSent, err
	case err != nil:
		// A connection that is away may keep it, and send it much later. One that is closed says so to requests on their way too.
		return 0, unknown, err
	}
	var ack struct {
		Stream string    `json:"stream"`
		Seq    uint64    `json:"seq"`
		Error  *apiError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return 0, unknown, fmt.Errorf("answer does not decode: %w", err)
	}
	switch {
	case ack.Error == nil && ack.Stream == g.stream && ack.Seq > 0:
		return ack.Seq, yes, nil
	case ack.Error == nil:
		return 0, unknown, fmt.Errorf("acknowledged by stream %q as %d, not by %s", ack.Stream, ack.Seq, g.stream)
	case hasCode(ack.Error, codeWrongLastSeq, codeWriteInFlight):
		return 0, no, ack.Error // both are said before the message is taken: this one is not stored
	case ack.Error.Code >= 400 && ack.Error.Code < 500:
		return 0, notSent, ack.Error // too large, sealed, not allowed: it will be so the next time too
	}
	return 0, unknown, ack.Error
}

// read asks the stream's leader for what stands under a key. Never a direct get, which any replica answers: buckets have those on (R15).
func (g *KV) read(ctx context.Context, key string) (Record, error) {
	if err := checkKey(key); err != nil {
		return Record{}, err
	}
	return g.get(ctx, key, fmt.Sprintf(`{"last_by_subj":%q}`, g.name+key))
}

// get makes one request for a message. Nothing found is a Record of revision 0.
func (g *KV) get(ctx context.Context, key, request string) (Record, error) {
	if ctx.Err() != nil {
		return Record{}, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Attempt)
	defer cancel()
	answer, err := g.nc.RequestWithContext(ctx, g.api+"STREAM.MSG.GET."+g.stream, []byte(request))
	if err != nil {
		return Record{}, err
	}
	var m struct {
		Error   *apiError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(answer.Data, &m); err != nil {
		return Record{}, fmt.Errorf("answer does not decode: %w", err)
	}
	switch {
	case hasCode(m.Error, codeNoMessage):
		return Record{Key: key}, nil
	case m.Error != nil:
		return Record{}, m.Error
	case m.Message == nil || m.Message.Subject != g.name+key:
		return Record{}, errors.New("answer without the message that was asked for")
	}
	r := Record{Key: key, Value: m.Message.Data, Revision: m.Message.Seq, Stored: m.Message.Time}
	if len(m.Message.Header) == 0 {
		return r, nil
	}
	h, err := nats.DecodeHeadersMsg(m.Message.Header)
	if err != nil {
		return Record{}, fmt.Errorf("headers do not decode: %w", err)
	}
	// A removal is one whatever its body is, also an expiry, which the server writes (R18). That has no token.
	if h.Get("KV-Operation") != "" || h.Get(jetstream.MarkerReasonHeader) != "" {
		r.Deleted, r.Value = true, nil
	}
	r.nonce, r.replaced = h.Get(wire.HeaderNonce), h.Get(jetstream.ExpectedLastSubjSeqHeader)
	if t := h.Values(Header); len(t) > 0 {
		// Not taken for 0: that would let everybody write over it.
		if r.Token, err = parse(t[0]); err != nil || len(t) > 1 {
			return Record{}, fmt.Errorf("%w: %q", ErrRecord, t)
		}
	}
	return r, nil
}

// Codes of the JetStream API that decide something here.
const (
	codeNoMessage     = 10037
	codeWrongLastSeq  = 10071
	codeWriteInFlight = 10164 // another write to the key is under way
)

type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

func hasCode(err error, codes ...int) bool {
	var e *apiError
	if !errors.As(err, &e) || e == nil {
		return false
	}
	for _, c := range codes {
		if e.ErrCode == c {
			return true
		}
	}
	return false
}

// passes tells errors that pass by themselves (a connection that is away, a cluster without a leader) from those that stay.
func passes(err error) bool {
	var e *apiError
	if errors.As(err, &e) {
		return e.Code >= 500
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, nats.ErrReconnectBufExceeded)
}

// wait pauses before the next try: 10 ms, doubling to a quarter of a second, plus or minus a half. An error: ctx has ended.
func wait(ctx context.Context, try int) error {
	d := min(10*time.Millisecond<<min(try, 8), 250*time.Millisecond)
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// checkKey is the rule of KV buckets.
func checkKey(key string) error {
	if key == "" || key[0] == '.' || key[len(key)-1] == '.' || strings.Contains(key, "..") || strings.ContainsFunc(key, foreign) {
		return fmt.Errorf("key %q: %w", key, jetstream.ErrInvalidKey)
	}
	return nil
}

func foreign(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-/_=.", r))
}
