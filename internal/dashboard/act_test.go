package dashboard

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/coord"
)

// three members that vote yes, yes, no; the first leads.
func three(s *scene) (first *coord.Group, browser *browser) {
	_, first = s.member("workers", "a", "yes", nil)
	s.member("workers", "b", "yes", nil)
	s.member("workers", "c", "no", nil)
	b := s.browser()
	s.until("three members and a leader", func() bool {
		_, page := b.get("/?group=workers")
		return strings.Contains(page, "3 members can vote") && strings.Contains(page, "<b>a</b>")
	})
	s.pass(lease)
	return first, b
}

// What is confirmed is done, by plain forms; the page says what came of it, and the audit who had it done.
func TestAct(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		_, b := three(s)
		if said := b.act("/vote", b.form("/vote?group=workers&kind=majority&seconds=5&topic="+url.QueryEscape("go on?"))); said != "vote on “go on?”: yes: 2 yes, 1 no, 0 abstain of 3." &&
			!strings.HasPrefix(said, "vote on “go on?”: yes: 2 yes, 0 no") {
			t.Errorf("a vote: %s", said)
		}
		if said := b.act("/vote", b.form("/vote?group=workers&kind=some&number=3&topic=x")); !strings.HasPrefix(said, "vote on “x”: no: ") {
			t.Errorf("a vote of three: %s", said)
		}
		if said := b.act("/step-down", b.form("/step-down?group=workers&to=c")); !strings.HasPrefix(said, "step-down of a: c leads now, token ") {
			t.Errorf("a step-down: %s", said)
		}
		form := b.form("/step-down?group=workers&to=")
		if said := b.act("/step-down", form); !strings.HasPrefix(said, "step-down of c: ") || !strings.Contains(said, " leads now, token ") {
			t.Errorf("a step-down for nobody: %s", said)
		}
		v := b.view("group=workers")
		v.shows("members", `data-key="b `)
		code, page := b.get("/?group=workers")
		i := strings.Index(page, `href="/evict?group=workers&amp;member=b&amp;`)
		if code != http.StatusOK || i < 0 {
			t.Fatalf("no way to evict b:\n%s", page)
		}
		path, _, _ := strings.Cut(page[i+len(`href="`):], `"`)
		evict := b.form(unescape(path))
		if said := b.act("/evict", evict); said != "eviction of b: b is no member any more." {
			t.Errorf("an eviction: %s", said)
		}
		v.shows("timeline", "<b>b</b> was evicted")
		if strings.Contains(v.section("members"), `data-key="b `) {
			t.Error("b is a member still")
		}
		// The same once more: the term and the incarnation that it was about are gone, and nobody else is harmed.
		if said := b.act("/step-down", form); said != "step-down of c: it was gone already: nothing was done." {
			t.Errorf("the same step-down again: %s", said)
		}
		s.member("workers", "b2", "", nil)
		evict.Set("member", "b2")
		if said := b.act("/evict", evict); said != "eviction of b2: it was gone already: nothing was done." {
			t.Errorf("another incarnation: %s", said)
		}
		v.close()
		s.mu.Lock()
		defer s.mu.Unlock()
		if all := strings.Join(s.audit, "\n"); len(s.audit) != 7 || !strings.Contains(all, `step-down of a in group "workers": c leads now`) {
			t.Errorf("audited:\n%s", all)
		}
	})
}

// What cannot be done is said, and what is not whole is refused.
func TestActRefused(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		_, b := three(s)
		for path, want := range map[string]int{
			"/vote?group=workers":                                                  http.StatusBadRequest,
			"/vote?group=workers&topic=x&kind=whatever":                            http.StatusBadRequest,
			"/vote?group=workers&topic=x&kind=some&number=0":                       http.StatusBadRequest,
			"/vote?group=workers&topic=x&kind=majority&seconds=601":                http.StatusBadRequest,
			"/vote?group=workers&topic=x&kind=majority&seconds=-":                  http.StatusBadRequest,
			"/vote?group=workers&kind=majority&topic=" + strings.Repeat("x", 1025): http.StatusBadRequest,
			"/vote?group=nobody&topic=x&kind=majority":                             http.StatusNotFound,
			"/vote?topic=x&kind=majority":                                          http.StatusNotFound,
			"/step-down?group=nobody":                                              http.StatusNotFound,
			"/step-down?group=workers&to=a.b":                                      http.StatusBadRequest,
			"/evict?group=workers&member=b":                                        http.StatusBadRequest,
			"/evict?group=workers&member=a.b&incarnation=1":                        http.StatusBadRequest,
		} {
			if code, page := b.get(path); code != want || !strings.Contains(page, "<h2>"+http.StatusText(want)) {
				t.Errorf("GET %s: %d\n%s", path, code, page)
			}
		}
		form := b.form("/step-down?group=workers&to=b")
		form.Set("to", "nobody")
		if said := b.act("/step-down", form); said != "step-down of a: the member that was named cannot lead now." {
			t.Errorf("a successor that is none: %s", said)
		}
		for _, missing := range []string{"term", "leader"} {
			form := b.form("/step-down?group=workers&to=b")
			form.Del(missing)
			if code, page, _ := b.post("/step-down", form); code != http.StatusBadRequest {
				t.Errorf("without %s: %d %s", missing, code, page)
			}
		}
		form = b.form("/vote?group=workers&kind=majority&topic=x")
		form.Set("ballot", "not one")
		if code, page, _ := b.post("/vote", form); code != http.StatusBadRequest {
			t.Errorf("a ballot id that is none: %d %s", code, page)
		}
		if code, _, _ := b.post("/vote", url.Values{"topic": {strings.Repeat("x", maxForm)}}); code != http.StatusForbidden {
			t.Errorf("a form that is too long: %d", code)
		}
		s.member("quiet", "q", "", nil)
		s.pass(2 * lease)
		if said := b.act("/vote", b.form("/vote?group=quiet&kind=majority&topic=x")); said != "vote on “x”: nobody in the group votes." {
			t.Errorf("a vote without voters: %s", said)
		}
	})
}

// W1: a form that another page has sent, or that belongs to another browser, is refused, and nothing is done.
func TestForeignForms(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		first, b := three(s)
		other := s.browser()
		for _, tt := range []struct {
			name   string
			origin string
			by     *browser
			change func(url.Values)
			fetch  string
		}{
			{"of another site", "https://evil.example", b, nil, ""},
			{"of another port", "http://127.0.0.1:8081", b, nil, ""},
			{"of a sandboxed frame", "null", b, nil, ""},
			{"of a name that begins the same", "http://127.0.0.1:8080.evil.example", b, nil, ""},
			{"of a scheme that is none", "127.0.0.1:8080", b, nil, ""},
			{"without an origin", "", b, nil, ""},
			{"without an origin, from elsewhere", "", b, nil, "cross-site"},
			{"without an origin, from a sister", "", b, nil, "same-site"},
			{"without the cookie", b.origin, other, nil, ""},
			{"without the token", b.origin, b, func(v url.Values) { v.Del("token") }, ""},
			{"with another token", b.origin, b, func(v url.Values) { v.Set("token", "x") }, ""},
			{"with the token of another browser", b.origin, b, func(v url.Values) { v.Set("token", other.form("/step-down?group=workers").Get("token")) }, ""},
		} {
			form := b.form("/step-down?group=workers&to=b")
			if tt.change != nil {
				tt.change(form)
			}
			sender := *tt.by
			sender.origin, sender.header = tt.origin, http.Header{}
			if tt.fetch != "" {
				sender.header.Set("Sec-Fetch-Site", tt.fetch)
			}
			if code, page, _ := sender.post("/step-down", form); code != http.StatusForbidden {
				t.Errorf("W1: a form %s: %d %s", tt.name, code, page)
			}
		}
		s.pass(lease)
		if l, err := first.Leader(s.ctx); err != nil || l.Holder != "a" {
			t.Errorf("W1: a foreign form was obeyed: %q leads (%v)", l.Holder, err)
		}
		// A browser that is too old to name an origin says at least that it comes from the page.
		old := *b
		old.origin, old.header = "", http.Header{"Sec-Fetch-Site": {"same-origin"}}
		if said := old.act("/step-down", b.form("/step-down?group=workers&to=b")); !strings.Contains(said, "b leads now") {
			t.Errorf("its own form: %s", said)
		}
		// Behind a proxy the scheme is another one, and a port may be written out.
		behind := *b
		behind.origin = "https://127.0.0.1:8080"
		if said := behind.act("/step-down", b.form("/step-down?group=workers&to=a")); !strings.Contains(said, "a leads now") {
			t.Errorf("behind a proxy: %s", said)
		}
		if !sameOrigin("https://ops.example.org", "ops.example.org:443") || sameOrigin("https://ops.example.org:8443", "ops.example.org") {
			t.Error("W1: ports are not told apart, or a default one is")
		}
	})
}

// W2: under a name that is not its own the page does not show itself: that name is one that somebody has had resolve here.
func TestForeignHosts(t *testing.T) {
	run(t, Config{Hosts: []string{"ops.example.org", "Other:8443"}}, func(s *scene) {
		s.member("workers", "a", "", nil)
		s.pass(2 * lease)
		for host, ours := range map[string]bool{
			"127.0.0.1:8080": true, "127.0.0.1": true, "localhost:9000": true, "localhost": true, "LOCALHOST.": true, "[::1]:8080": true, "10.1.2.3:80": true,
			"ops.example.org": true, "OPS.example.org:443": true, "other": true,
			"evil.example": false, "evil.example:8080": false, "ops.example.org.evil.example": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false, "xops.example.org": false,
		} {
			for _, path := range []string{"/", "/?group=workers", "/live.js", "/events", "/nothing"} {
				if !ours || path != "/events" {
					b := s.browser()
					r, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://127.0.0.1:8080"+path, nil)
					if err != nil {
						t.Fatal(err)
					}
					r.Host = host
					resp, err := b.c.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					body, _ := io.ReadAll(resp.Body) // what there is of it
					resp.Body.Close()
					if got := resp.StatusCode != http.StatusMisdirectedRequest; got != ours {
						t.Errorf("W2: host %q, %s: %d", host, path, resp.StatusCode)
					}
					if !ours && strings.Contains(string(body), "workers") {
						t.Errorf("W2: host %q was shown %s", host, body)
					}
				}
			}
		}
	})
}

// W3: a read-only page shows no way to do anything, and does nothing that is asked of it all the same.
func TestReadOnly(t *testing.T) {
	run(t, Config{ReadOnly: true}, func(s *scene) {
		_, first := s.member("workers", "a", "yes", nil)
		s.member("workers", "b", "yes", nil)
		s.pass(3 * lease)
		b := s.browser()
		_, page := b.get("/?group=workers")
		if !strings.Contains(page, "<b>a</b>") || !strings.Contains(page, "read-only") || strings.Contains(page, "Evict") || strings.Contains(page, "Step down") || strings.Contains(page, "<form") {
			t.Errorf("W3: the page:\n%s", page)
		}
		l, err := first.Leader(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for path, form := range map[string]url.Values{
			"/step-down": {"group": {"workers"}, "leader": {"a"}, "term": {strconv.FormatUint(l.Token, 10)}},
			"/evict":     {"group": {"workers"}, "member": {"b"}, "incarnation": {"1"}},
			"/vote":      {"group": {"workers"}, "topic": {"x"}, "kind": {"majority"}, "seconds": {"5"}, "ballot": {"b1"}},
		} {
			if code, _ := b.get(path + "?" + form.Encode()); code != http.StatusForbidden {
				t.Errorf("W3: GET %s: %d", path, code)
			}
			// As whoever knows how to make a form of this page.
			r := b.do(http.MethodGet, "/", nil)
			r.Body.Close()
			const cookie = "anything"
			b.header.Set("Cookie", s.d.cookie()+"="+cookie)
			form.Set("token", s.d.token(cookie))
			if code, body, _ := b.post(path, form); code != http.StatusForbidden {
				t.Errorf("W3: POST %s: %d %s", path, code, body)
			}
		}
		s.pass(lease)
		if after, err := first.Leader(s.ctx); err != nil || after.Token != l.Token {
			t.Errorf("W3: a read-only page had the leader step down (%v)", err)
		}
	})
}

// W4: without the password nothing is shown, and guessing is slow.
func TestPassword(t *testing.T) {
	run(t, Config{Password: "open sesame"}, func(s *scene) {
		s.member("workers", "a", "", nil)
		s.pass(2 * lease)
		b := s.browser()
		for _, path := range []string{"/", "/?group=workers", "/events", "/style.css", "/evict", "/nothing"} {
			resp := b.do(http.MethodGet, path, nil)
			body, _ := io.ReadAll(resp.Body) // what there is of it
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic ") || strings.Contains(string(body), "workers") {
				t.Errorf("W4: %s without the password: %d %s", path, resp.StatusCode, body)
			}
		}
		if code, _, _ := b.post("/step-down", url.Values{}); code != http.StatusUnauthorized {
			t.Errorf("W4: a form without the password: %d", code)
		}
		with := func(password string) *browser {
			b := s.browser()
			r := &http.Request{Header: http.Header{}}
			r.SetBasicAuth("anybody", password)
			b.header = r.Header
			return b
		}
		for _, wrong := range []string{"", "open", "open sesame ", "OPEN SESAME"} {
			began := time.Now()
			if code, _ := with(wrong).get("/"); code != http.StatusUnauthorized || time.Since(began) < time.Second {
				t.Errorf("W4: %q: %d after %v", wrong, code, time.Since(began))
			}
		}
		// Who guesses many at once is told to come later; who knows it gets in all the same, later at most.
		guesses := make(chan int, 100)
		for range cap(guesses) {
			s.wg.Go(func() {
				code, _ := with("x").get("/")
				guesses <- code
			})
		}
		s.pass(10 * time.Millisecond)
		refused := 0
		for range cap(guesses) {
			if <-guesses == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused < 40 {
			t.Errorf("W4: of 100 guesses at once %d were refused", refused)
		}
		right := with("open sesame")
		if code, page := right.get("/?group=workers"); code != http.StatusOK || !strings.Contains(page, "<b>a</b>") {
			t.Errorf("with the password: %d %s", code, page)
		}
		v := right.view("group=workers")
		v.shows("summary", "<b>a</b>")
		v.close()
	})
}

// W5: what is sent is fit to be shown to nobody else, and brings nothing in from elsewhere.
func TestHeaders(t *testing.T) {
	run(t, Config{TLS: true}, func(s *scene) {
		three(s)
		b := s.browser()
		for _, path := range []string{"/", "/?group=workers", "/events", "/style.css", "/live.js", "/nothing", "/step-down?group=workers", "/vote?group=workers&kind=majority&topic=x"} {
			ctx, cancel := context.WithCancel(s.ctx)
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8080"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := b.c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
				"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": policy, "Access-Control-Allow-Origin": ""} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("W5: %s: %s %q, want %q", path, name, got, want)
				}
			}
			if c := resp.Header.Get("Set-Cookie"); strings.HasPrefix(path, "/step-down") &&
				(!strings.HasPrefix(c, "__Host-quorate=") || !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "Secure") || !strings.Contains(c, "SameSite=Strict")) {
				t.Errorf("W5: the cookie: %q", c)
			}
			if path != "/events" {
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				// The policy lets nothing of this be carried out; it is not to be there in the first place.
				for _, bad := range []string{"<style", "style=", "onclick", "onload", "javascript:", "<script>", "http:", "https:", "//"} {
					if strings.Contains(resp.Header.Get("Content-Type"), "html") && strings.Contains(string(body), bad) {
						t.Errorf("W5: %s: %q is in it", path, bad)
					}
				}
			}
			cancel()
			resp.Body.Close()
		}
		// Another site's page cannot take the seats of viewers.
		b.header.Set("Sec-Fetch-Site", "cross-site")
		if code, _ := b.get("/events"); code != http.StatusForbidden {
			t.Errorf("W5: live updates for another site: %d", code)
		}
	})
}

// An action that is under way when the page ends is cut off, and said to be: nobody knows what came of it.
func TestActionCutOff(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		_, b := three(s)
		ns, _ := s.member("workers", "d", "yes", nil)
		s.pass(2 * lease)
		s.e.Pause(ns) // and does not answer
		code, _, to := b.post("/vote", b.form("/vote?group=workers&kind=some&number=3&seconds=600&topic=x"))
		if code != http.StatusSeeOther || !strings.HasPrefix(to, "/?act=") {
			t.Fatalf("%d %s", code, to)
		}
		if _, page := b.get(to); !strings.Contains(page, `<p class="notice running">vote on “x”: under way.</p>`) {
			t.Errorf("while it is under way:\n%s", page)
		}
		s.stop()
		s.until("the end is audited", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.audit) == 1 && strings.HasSuffix(s.audit[0], `vote on “x” in group "workers": the page has ended: it may have been heard or not`)
		})
	})
}

// W2, W4: what is served beside the page is asked for as the page is.
func TestBeside(t *testing.T) {
	d := New(Config{Password: "sesame", Beside: map[string]http.Handler{"/metrics": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "seven members") })}})
	for _, w := range []struct {
		host, password string
		code           int
	}{
		{"evil.example.org", "sesame", http.StatusMisdirectedRequest},
		{"127.0.0.1:8080", "", http.StatusUnauthorized},
		{"127.0.0.1:8080", "sesame", http.StatusOK},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://"+w.host+"/metrics", nil)
		if w.password != "" {
			r.SetBasicAuth("prometheus", w.password)
		}
		got := httptest.NewRecorder()
		d.ServeHTTP(got, r)
		if got.Code != w.code || strings.Contains(got.Body.String(), "seven members") != (w.code == http.StatusOK) {
			t.Errorf("as %s with the password %q: %d %q, want %d", w.host, w.password, got.Code, got.Body, w.code)
		}
	}
}
