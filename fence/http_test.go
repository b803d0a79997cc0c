package fence_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/fence"
	"github.com/quorate/quorate/testenv"
)

// ask sends one request through a guard and gives the answer.
func ask(h http.Handler, method, path string, tokens ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for _, t := range tokens {
		r.Header.Add(fence.Header, t)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func byPath(r *http.Request) string { return r.URL.Path }

func TestHTTP(t *testing.T) {
	served := 0
	h := fence.HTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served++
		w.WriteHeader(http.StatusNoContent)
	}), fence.HTTPConfig{Scope: byPath})
	for _, c := range []struct {
		method, path string
		tokens       []string
		code         int
		highest      string // of the answer
	}{
		{"PUT", "/a", []string{"5"}, 204, "5"},
		{"PUT", "/a", []string{"5"}, 204, "5"}, // the same term
		{"PUT", "/a", []string{"4"}, 412, "5"},
		{"PUT", "/b", []string{"4"}, 204, "4"}, // another scope
		{"PUT", "/a", []string{"18446744073709551615"}, 204, "18446744073709551615"},
		{"DELETE", "/a", []string{"6"}, 412, "18446744073709551615"},
		{"PUT", "/b", nil, 428, ""},
		{"POST", "/b", nil, 428, ""},
		{"GET", "/b", nil, 204, ""}, // reads are free, unless they bring a token
		{"GET", "/b", []string{"3"}, 412, "4"},
		{"PUT", "/b", []string{""}, 400, ""},
		{"PUT", "/b", []string{"x"}, 400, ""},
		{"PUT", "/b", []string{"0"}, 400, ""},
		{"PUT", "/b", []string{"007"}, 400, ""},
		{"PUT", "/b", []string{"+7"}, 400, ""},
		{"PUT", "/b", []string{"-7"}, 400, ""},
		{"PUT", "/b", []string{"18446744073709551616"}, 400, ""},
		{"PUT", "/b", []string{"7", "8"}, 400, ""},
		{"PUT", "/b", []string{"4"}, 204, "4"}, // what was refused has raised nothing
	} {
		before := served
		a := ask(h, c.method, c.path, c.tokens...)
		body, _ := io.ReadAll(a.Body)
		if a.StatusCode != c.code || a.Header.Get(fence.Header) != c.highest {
			t.Errorf("F1: %s %s with %q: got %d, token %q (%s); want %d, %q", c.method, c.path, c.tokens,
				a.StatusCode, a.Header.Get(fence.Header), body, c.code, c.highest)
		}
		if wanted := c.code == 204; (served > before) != wanted || !wanted && strings.Count(string(body), "\n") != 1 {
			t.Errorf("%s %s with %q: served %v, said %q", c.method, c.path, c.tokens, served > before, body)
		}
	}
}

// A store that is full refuses: forgetting a scope would let its older writers in again.
func TestHTTPStore(t *testing.T) {
	h := fence.HTTP(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), fence.HTTPConfig{Scope: byPath, Store: fence.NewMemory(2)})
	for _, c := range []struct {
		path, token string
		code        int
	}{{"/a", "5", 200}, {"/b", "5", 200}, {"/c", "5", 503}, {"/a", "4", 412}, {"/b", "6", 200}, {"/c", "9", 503}} {
		if a := ask(h, "PUT", c.path, c.token); a.StatusCode != c.code {
			t.Errorf("PUT %s with %s: got %d, want %d", c.path, c.token, a.StatusCode, c.code)
		}
	}
	h = fence.HTTP(http.NotFoundHandler(), fence.HTTPConfig{Store: broken{}})
	if a := ask(h, "PUT", "/a", "5"); a.StatusCode != 503 {
		t.Errorf("a store that fails: got %d, want 503", a.StatusCode)
	}
}

type broken struct{}

func (broken) Raise(context.Context, string, uint64) (uint64, error) { return 0, errors.New("away") }

// F1: what has begun with an older token is over before a newer one is served.
func TestHTTPOlderReturnFirst(t *testing.T) {
	var inside, newer atomic.Int64
	begun, linger := make(chan struct{}, 2), make(chan struct{})
	h := fence.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(fence.Header) != "5" {
			newer.Add(1)
			fmt.Fprint(w, inside.Load())
			return
		}
		inside.Add(1)
		begun <- struct{}{}
		select {
		case <-r.Context().Done(): // asked to stop by the newer one
		case <-linger:
		}
		if err := context.Cause(r.Context()); !errors.Is(err, fence.ErrStale) {
			t.Errorf("cause: %v", err)
		}
		<-linger // and takes its time
		inside.Add(-1)
	}), fence.HTTPConfig{})
	var wg sync.WaitGroup
	stopped := make(chan struct{}, 2)
	for range 2 { // of one token at once
		wg.Go(func() { ask(h, "PUT", "/", "5"); stopped <- struct{}{} })
	}
	<-begun
	<-begun
	// One that does not want to wait.
	short, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(short, "PUT", "/", nil)
	r.Header.Set(fence.Header, "6")
	h.ServeHTTP(w, r)
	if w.Code != 503 || newer.Load() != 0 {
		t.Errorf("a newer one that gave up waiting: %d, served %d", w.Code, newer.Load())
	}
	answer := make(chan *http.Response, 1)
	wg.Go(func() { answer <- ask(h, "PUT", "/", "7") })
	// While it waits, nothing older gets in, not of the running token either.
	for {
		select {
		case a := <-answer:
			t.Fatalf("F1: the newer one was answered (%d) while older ones were inside", a.StatusCode)
		default:
		}
		a := ask(h, "PUT", "/", "4")
		if a.StatusCode != 412 {
			t.Fatalf("F1: token 4: got %d", a.StatusCode)
		}
		if a.Header.Get(fence.Header) == "7" {
			break
		}
	}
	if a := ask(h, "PUT", "/", "5"); a.StatusCode != 412 || newer.Load() != 0 {
		t.Errorf("F1: joined those that were asked to stop: %d, newer ones served %d", a.StatusCode, newer.Load())
	}
	close(linger)
	a := <-answer
	if body, _ := io.ReadAll(a.Body); a.StatusCode != 200 || string(body) != "0" {
		t.Errorf("F1: the newer one was served while %s of the older were inside (%d)", body, a.StatusCode)
	}
	wg.Wait()
	if a := ask(h, "PUT", "/", "6"); a.StatusCode != 412 {
		t.Errorf("F1: an older one afterwards: got %d", a.StatusCode)
	}
}

// Who gave up waiting leaves nothing behind: its token was never used.
func TestHTTPGaveUp(t *testing.T) {
	begun, linger := make(chan struct{}), make(chan struct{})
	h := fence.HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get(fence.Header) == "5" {
			close(begun)
			<-linger
		}
	}), fence.HTTPConfig{})
	var wg sync.WaitGroup
	wg.Go(func() { ask(h, "PUT", "/", "5") })
	<-begun
	answer := make(chan *http.Response, 1)
	wg.Go(func() { answer <- ask(h, "PUT", "/", "6") }) // waits
	for ask(h, "PUT", "/", "4").Header.Get(fence.Header) != "6" {
	}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(short, "PUT", "/", nil)
	r.Header.Set(fence.Header, "7")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r) // wants to be next, and does not wait
	if w.Code != 503 {
		t.Errorf("gave up: got %d, want 503", w.Code)
	}
	close(linger)
	if a := <-answer; a.StatusCode != 412 || a.Header.Get(fence.Header) != "7" {
		t.Errorf("F1: while a newer one waited, or had: got %d", a.StatusCode)
	}
	wg.Wait()
	if a := ask(h, "PUT", "/", "6"); a.StatusCode != 200 {
		t.Errorf("7 was never used: got %d for 6, want 200", a.StatusCode)
	}
}

// A handler that panics holds nobody up.
func TestHTTPPanic(t *testing.T) {
	h := fence.HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get(fence.Header) == "5" {
			panic(http.ErrAbortHandler)
		}
	}), fence.HTTPConfig{})
	func() {
		defer func() { _ = recover() }()
		ask(h, "PUT", "/", "5")
	}()
	if a := ask(h, "PUT", "/", "6"); a.StatusCode != 200 {
		t.Errorf("got %d", a.StatusCode)
	}
}

// Two servers that share a bucket: what one has seen the other knows, also when both are new.
func TestHTTPSharedStore(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		serve := func(g *fence.KV) http.Handler {
			return fence.HTTP(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), fence.HTTPConfig{Scope: byPath, Store: fence.KVStore(g, "fence.")})
		}
		one, two := serve(w.a), serve(w.b)
		for i, c := range []struct {
			h           http.Handler
			path, token string
			code        int
		}{{one, "/x y", "5", 200}, {two, "/x y", "4", 412}, {two, "/x y", "6", 200}, {one, "/x y", "5", 412},
			{serve(w.a), "/x y", "5", 412}, {two, "/", "1", 200}} {
			if a := ask(c.h, "PUT", strings.ReplaceAll(c.path, " ", "%20"), c.token); a.StatusCode != c.code {
				t.Errorf("F1: request %d: got %d, want %d", i, a.StatusCode, c.code)
			}
		}
		w.link.Cut(testenv.Both)
		start := time.Now()
		if a := ask(one, "PUT", "/", "7"); a.StatusCode != 503 || time.Since(start) > 6*time.Second {
			t.Errorf("without a server: got %d after %v", a.StatusCode, time.Since(start))
		}
	})
}

// The client's side: the token goes out while it is held, and a refusal is an error that names both.
func TestHTTPClient(t *testing.T) {
	served := 0
	s := httptest.NewServer(fence.HTTP(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }), fence.HTTPConfig{}))
	defer s.Close()
	put := func(h fence.Holder) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), "PUT", s.URL+"/reports", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := (&http.Client{Transport: fence.RoundTripper(nil, h)}).Do(r)
		if r.Header.Get(fence.Header) != "" {
			t.Error("the caller's request was changed")
		}
		if err == nil {
			a.Body.Close()
		}
		return a, err
	}
	a, err := put(fence.Token(6))
	if err != nil || a.StatusCode != 200 || fence.ResponseError(a) != nil {
		t.Fatalf("got %v, %v", a, err)
	}
	if a, err = put(fence.Token(5)); err != nil {
		t.Fatal(err)
	}
	stale(t, fence.ResponseError(a), 5, 6)
	h := &fickle{}
	if _, err := put(h); !errors.Is(err, fence.ErrNotLive) || served != 1 {
		t.Errorf("F3: got %v, want ErrNotLive; served %d", err, served)
	}
	if err := fence.SetHeader(http.Header{}, fence.Token(0)); !errors.Is(err, fence.ErrNoToken) {
		t.Errorf("got %v, want ErrNoToken", err)
	}
	if err := fence.ResponseError(&http.Response{StatusCode: 412, Header: http.Header{}}); err != nil {
		t.Errorf("another's 412: %v", err)
	}
}
