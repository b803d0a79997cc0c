package dashboard

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Who may see the page, and who may act through it. The numbers are those of docs/guarantees.md.

// policy lets nothing in but what is embedded: no script or style in the page itself, nothing from elsewhere, nobody's frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP serves the page. Before anything else it looks at the name that it was asked for by: a foreign name is one that somebody else has had resolve to
// this address, so that his own page may read ours (DNS rebinding). IP addresses cannot be had so, and localhost is nobody else's.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // with no-referrer browsers send no origin with forms
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store")
	switch {
	case !d.knows(r.Host): // W2
		http.Error(w, "this page is not served under that name: start quorate web with --host NAME, or ask for it by an IP address", http.StatusMisdirectedRequest)
		return
	case !d.admitted(w, r): // W4
		return
	}
	if beside := d.cfg.Beside[r.URL.Path]; beside != nil {
		beside.ServeHTTP(w, r)
		return
	}
	serve, ok := d.routes()[r.URL.Path]
	if !ok {
		d.refuse(w, http.StatusNotFound, "There is no such page.")
		return
	}
	if !slices.Contains(serve.methods, r.Method) {
		h.Set("Allow", strings.Join(serve.methods, ", "))
		d.refuse(w, http.StatusMethodNotAllowed, "That cannot be asked of this address.")
		return
	}
	if serve.acts && d.cfg.ReadOnly { // W3
		d.refuse(w, http.StatusForbidden, "This page is read-only.")
		return
	}
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if why := d.foreign(r); why != "" { // W1
			d.refuse(w, http.StatusForbidden, why)
			return
		}
	}
	serve.handle(w, r)
}

// maxForm is how long a form may be, in bytes.
const maxForm = 16 << 10

// A route is an address of the page.
type route struct {
	methods []string
	acts    bool // it is about something that is done
	handle  http.HandlerFunc
}

func (d *Dashboard) routes() map[string]route {
	look := []string{http.MethodGet, http.MethodHead}
	act := []string{http.MethodGet, http.MethodHead, http.MethodPost}
	return map[string]route{
		"/":            {look, false, d.servePage},
		"/events":      {[]string{http.MethodGet}, false, d.serveEvents},
		"/style.css":   {look, false, serveAsset("text/css; charset=utf-8", d.css)},
		"/live.js":     {look, false, serveAsset("text/javascript; charset=utf-8", d.js)},
		"/favicon.svg": {look, false, serveAsset("image/svg+xml", []byte(icon))},
		"/step-down":   {act, true, d.serveStepDown},
		"/evict":       {act, true, d.serveEvict},
		"/vote":        {act, true, d.serveVote},
	}
}

// knows says whether the page may be asked for by that name.
func (d *Dashboard) knows(host string) bool {
	name := hostname(host)
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return name == "localhost" || slices.ContainsFunc(d.cfg.Hosts, func(h string) bool { return strings.EqualFold(hostname(h), name) })
}

// hostname is a host without its port, in lower case.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// admitted asks for the password, if there is one.
func (d *Dashboard) admitted(w http.ResponseWriter, r *http.Request) bool {
	if d.cfg.Password == "" {
		return true
	}
	select {
	case d.slow <- struct{}{}: // one of those who may try now
	case <-time.After(2 * time.Second):
		w.Header().Set("Retry-After", "2")
		http.Error(w, "too many wrong passwords at once", http.StatusTooManyRequests)
		return false
	}
	defer func() { <-d.slow }()
	_, password, given := r.BasicAuth()
	got, want := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(d.cfg.Password))
	if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
		return true
	}
	if given { // who guesses has sixteen tries in a second
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
		case <-d.life.Done():
		}
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="quorate", charset="UTF-8"`)
	http.Error(w, "a password is needed; any user name will do", http.StatusUnauthorized)
	return false
}

// foreign says why a form cannot be one that a page of ours has shown, "" if it is. A browser says which page has sent a form, and only that page has read
// the token that belongs to the browser's cookie.
func (d *Dashboard) foreign(r *http.Request) string {
	const other = "That form was not sent from this page."
	switch origin := r.Header.Get("Origin"); {
	case origin == "" && r.Header.Get("Sec-Fetch-Site") != "same-origin":
		return other
	case origin != "" && !sameOrigin(origin, r.Host):
		return other
	}
	c, err := r.Cookie(d.cookie())
	if err != nil || len(c.Value) > 64 || !hmac.Equal([]byte(d.token(c.Value)), []byte(r.PostFormValue("token"))) {
		return "That form is out of date: go back, load it again, and send it once more."
	}
	return ""
}

// sameOrigin says whether an origin is the host that was asked, whichever of http and https lies between: a proxy may stand there.
func sameOrigin(origin, host string) bool {
	scheme, o, ok := strings.Cut(origin, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return false
	}
	plain := func(s string) string {
		return strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), ":80"), ":443")
	}
	return plain(o) == plain(host)
}

// cookie is the name of the cookie that forms are bound to. The prefix has browsers refuse one that was set by another host, or without TLS.
func (d *Dashboard) cookie() string {
	if d.cfg.TLS {
		return "__Host-quorate"
	}
	return "quorate"
}

// token is what a form carries for a cookie.
func (d *Dashboard) token(cookie string) string {
	m := hmac.New(sha256.New, d.key)
	m.Write([]byte(cookie))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// bind gives the browser its cookie, if it has none yet, and returns the token for its forms.
func (d *Dashboard) bind(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie(d.cookie()); err == nil && c.Value != "" && len(c.Value) <= 64 {
		return d.token(c.Value)
	}
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails
	c := &http.Cookie{Name: d.cookie(), Value: base64.RawURLEncoding.EncodeToString(b), Path: "/", HttpOnly: true, Secure: d.cfg.TLS, SameSite: http.SameSiteStrictMode}
	http.SetCookie(w, c)
	return d.token(c.Value)
}

// remote is who asks, for the audit.
func remote(r *http.Request) string {
	if by := r.Header.Get("X-Forwarded-For"); by != "" {
		return r.RemoteAddr + " (for " + firstRunes(by, 64) + ")"
	}
	return r.RemoteAddr
}

// firstRunes is the beginning of a text.
func firstRunes(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}
