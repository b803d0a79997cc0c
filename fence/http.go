package fence

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
)

// A Store keeps the highest token of each scope for [HTTP].
type Store interface {
	// Raise notes a token as the scope's highest unless a higher one is noted already, and returns which is the highest then.
	// It must be atomic: of calls at the same time none may be lost. After an error the request is refused.
	Raise(ctx context.Context, scope string, token uint64) (highest uint64, err error)
}

// HTTPConfig of [HTTP]. The zero value works.
type HTTPConfig struct {
	// Scope names what a request writes to, where tokens are compared: the tokens of one election for each. Default: one scope
	// for all requests. Derive it from what the handler acts on; a client that may choose it freely can choose an unused one.
	Scope func(*http.Request) string
	// Store keeps the highest tokens. Default a [Memory] of 1024 scopes, which forgets them when the process ends: an older writer
	// may come through once, before the first request of the newer. With several servers behind one name, share a store ([KVStore]).
	Store Store
	// Free says which requests need no token. One they bring is checked all the same. Default: GET, HEAD, OPTIONS and TRACE.
	Free func(*http.Request) bool
}

// HTTP guards a handler: requests carry their writer's token in the header Quorate-Token, and next is called only for those
// whose token is not older than the highest that its scope has seen. Others get one line and
//
//	412 Precondition Failed    the token is older; the answer's Quorate-Token is the highest. Not 409: trying again does not help
//	428 Precondition Required  there is no token
//	400 Bad Request            it is not a decimal number above 0
//	503 Service Unavailable    the store does not answer, or is full
//
// Within this process calls of next for one scope do not overlap with those of an older token: the newer request ends the older
// ones' contexts (the cause is a [StaleError]) and waits until they have returned. So what next has begun with an older token is
// over before a newer one is served. With several processes only what next writes to can promise that: hand the token on to it.
//
// Who may send requests is not this guard's business: put it behind authentication, for a huge token shuts everybody else out.
func HTTP(next http.Handler, cfg HTTPConfig) http.Handler {
	if cfg.Scope == nil {
		cfg.Scope = func(*http.Request) string { return "" }
	}
	if cfg.Store == nil {
		cfg.Store = NewMemory(0)
	}
	if cfg.Free == nil {
		cfg.Free = func(r *http.Request) bool {
			switch r.Method {
			case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
				return true
			}
			return false
		}
	}
	return &guard{next: next, cfg: cfg, lanes: map[string]*lane{}}
}

type guard struct {
	next  http.Handler
	cfg   HTTPConfig
	mu    sync.Mutex
	lanes map[string]*lane // of the scopes in which a request is
}

// A lane is what one scope is busy with: requests of one token.
type lane struct {
	token   uint64 // of those inside
	inside  int
	waiting int
	wanted  uint64 // the highest of those that wait; at least token
	ctx     context.Context
	stop    context.CancelCauseFunc
	empty   chan struct{} // closed when the last one inside leaves
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	say := func(code int, format string, args ...any) {
		http.Error(w, "fence: "+fmt.Sprintf(format, args...), code)
	}
	given := r.Header.Values(Header)
	switch {
	case len(given) == 0 && g.cfg.Free(r):
		g.next.ServeHTTP(w, r)
		return
	case len(given) == 0:
		say(http.StatusPreconditionRequired, "no fencing token: send it in the header %s", Header)
		return
	case len(given) > 1:
		say(http.StatusBadRequest, "%d headers %s: send one", len(given), Header)
		return
	}
	token, err := parse(given[0])
	if err != nil {
		say(http.StatusBadRequest, "header %s: %v", Header, err)
		return
	}
	scope := g.cfg.Scope(r)
	ctx, leave, err := g.enter(r.Context(), scope, token)
	if err == nil {
		defer leave()
		// After entering: a newer request that came in between would have been waited for, or waits for this one.
		err = g.raise(ctx, scope, token)
	}
	var stale *StaleError
	switch {
	case errors.As(err, &stale):
		w.Header().Set(Header, strconv.FormatUint(stale.Newer, 10))
		say(http.StatusPreconditionFailed, "%s: %v: stop", what(scope), stale)
		return
	case err != nil:
		say(http.StatusServiceUnavailable, "the token cannot be checked: %v", err)
		return
	}
	w.Header().Set(Header, given[0])
	g.next.ServeHTTP(w, r.WithContext(ctx))
}

func (g *guard) raise(ctx context.Context, scope string, token uint64) error {
	highest, err := g.cfg.Store.Raise(ctx, scope, token)
	switch {
	case err != nil:
		return err
	case highest > token:
		return &StaleError{What: what(scope), Token: token, Newer: highest}
	case highest < token:
		return fmt.Errorf("store answers %d for token %d", highest, token)
	}
	return nil
}

func what(scope string) string {
	if scope == "" {
		return "scope"
	}
	return "scope " + strconv.Quote(scope)
}

// enter waits until nothing of an older token is inside, and joins those of its own.
func (g *guard) enter(ctx context.Context, scope string, token uint64) (context.Context, func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		l := g.lanes[scope]
		if l == nil {
			l = &lane{}
			g.lanes[scope] = l
		}
		if token < l.wanted {
			g.forget(scope, l) // who wanted it may have given up meanwhile
			return nil, nil, &StaleError{What: what(scope), Token: token, Newer: l.wanted}
		}
		l.wanted = token
		if l.inside == 0 || l.token == token {
			run, end := l.join(ctx, token)
			return run, func() { end(); g.leave(scope, l) }, nil
		}
		l.stop(&StaleError{What: what(scope), Token: l.token, Newer: token})
		empty, older := l.empty, l.token
		l.waiting++
		g.mu.Unlock()
		var err error
		select {
		case <-empty:
		case <-ctx.Done():
			err = fmt.Errorf("waiting for requests of token %d to return: %w", older, context.Cause(ctx))
		}
		g.mu.Lock()
		l.waiting--
		if err != nil {
			g.forget(scope, l)
			return nil, nil, err
		}
	}
}

// join takes a request in: its context ends with the lane's too.
func (l *lane) join(ctx context.Context, token uint64) (run context.Context, done func()) {
	if l.inside == 0 {
		l.token, l.empty = token, make(chan struct{})
		l.ctx, l.stop = context.WithCancelCause(context.Background())
	}
	l.inside++
	lane := l.ctx // the next ones have another
	run, end := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(lane, func() { end(context.Cause(lane)) })
	return run, func() { unhook(); end(nil) }
}

func (g *guard) leave(scope string, l *lane) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.inside--; l.inside > 0 {
		return
	}
	l.stop(nil)
	close(l.empty)
	g.forget(scope, l)
}

// forget drops a lane that nobody is in or waits for: what has been seen is in the store.
func (g *guard) forget(scope string, l *lane) {
	if l.inside == 0 && l.waiting == 0 {
		delete(g.lanes, scope)
	}
}

// A Memory is a [Store] in this process, which forgets when it ends. It is bounded, and never forgets one scope for another: a new one
// is refused when it is full.
type Memory struct {
	mu   sync.Mutex
	max  int
	high map[string]uint64
}

// NewMemory makes a Memory of at most that many scopes; 0: 1024.
func NewMemory(scopes int) *Memory {
	if scopes <= 0 {
		scopes = 1024
	}
	return &Memory{max: scopes, high: map[string]uint64{}}
}

// Raise is [Store.Raise]. The error says that the memory is full.
func (m *Memory) Raise(_ context.Context, scope string, token uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	high, known := m.high[scope]
	if !known && len(m.high) >= m.max {
		return 0, fmt.Errorf("memory is full: %d scopes", m.max)
	}
	if token > high {
		m.high[scope] = token
		return token, nil
	}
	return high, nil
}

// KVStore is a [Store] in a bucket, for several servers and across restarts. A request costs a read and a write. The keys are
// prefix and an encoded scope; a prefix that is no beginning of a key ("fence." is one) shows at the first Raise.
func KVStore(g *KV, prefix string) Store { return kvStore{g, prefix} }

type kvStore struct {
	g      *KV
	prefix string
}

func (s kvStore) Raise(ctx context.Context, scope string, token uint64) (uint64, error) {
	// A write each time: a read alone may be old (R15).
	_, err := s.g.Put(ctx, s.prefix+"s"+base64.RawURLEncoding.EncodeToString([]byte(scope)), nil, Token(token))
	var stale *StaleError
	if errors.As(err, &stale) {
		return stale.Newer, nil
	}
	return token, err
}

// SetHeader puts the holder's token onto a request. It refuses, with [ErrNotLive], a holder that has lost its right.
func SetHeader(h http.Header, holder Holder) error {
	if err := check(holder); err != nil {
		return fmt.Errorf("fence: request: %w", err)
	}
	h.Set(Header, strconv.FormatUint(holder.Token(), 10))
	return nil
}

// RoundTripper sends requests with the holder's token, by next (nil: http.DefaultTransport). It refuses, with [ErrNotLive],
// to send any when the holder has lost its right. Each redirect that is followed asks again.
func RoundTripper(next http.RoundTripper, holder Holder) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return roundTripper{next, holder}
}

type roundTripper struct {
	next   http.RoundTripper
	holder Holder
}

func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	mine := r.Clone(r.Context()) // a RoundTripper must not change what it is given
	if err := SetHeader(mine.Header, t.holder); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	return t.next.RoundTrip(mine)
}

// ResponseError is a [StaleError] when the answer is that of a guard that has refused the request's token, else nil.
func ResponseError(r *http.Response) error {
	newer, err := parse(r.Header.Get(Header))
	if r.StatusCode != http.StatusPreconditionFailed || err != nil {
		return nil
	}
	stale := &StaleError{What: "request", Newer: newer}
	if r.Request != nil {
		stale.What = r.Request.Method + " " + r.Request.URL.Redacted()
		stale.Token, _ = parse(r.Request.Header.Get(Header)) // 0 if the request was made by other means
	}
	return fmt.Errorf("fence: %s: %w", stale.What, stale)
}
