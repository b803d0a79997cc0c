package bloc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// header names the session.
const header = "Bloc-Session-ID"

// ServeHTTP answers bloc's clients.
func (gw *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, ok := admit(w, r)
	switch {
	case !ok:
	case r.Method == http.MethodGet:
		gw.serveIndex(w, r, id)
	default:
		gw.serveSession(w, r, id)
	}
}

// admit gives the session that a request is about; what is not a request of bloc's is answered here.
func admit(w http.ResponseWriter, r *http.Request) (id string, ok bool) {
	var allow string
	switch r.URL.Path {
	case "/index":
		allow = http.MethodGet
	case "/session":
		allow = http.MethodDelete
	default:
		refuse(w, http.StatusNotFound, "there is GET /index and DELETE /session")
		return "", false
	}
	if r.Method != allow {
		w.Header().Set("Allow", allow)
		refuse(w, http.StatusMethodNotAllowed, "only "+allow+" can be asked of "+r.URL.Path)
		return "", false
	}
	ids := r.Header.Values(header)
	switch {
	case len(ids) == 0:
		refuse(w, http.StatusBadRequest, "the header "+header+" is missing")
		return "", false
	case len(ids) > 1:
		refuse(w, http.StatusBadRequest, "the header "+header+" is given more than once")
		return "", false
	}
	if err := wire.CheckID(ids[0]); err != nil {
		refuse(w, http.StatusBadRequest, header+": "+err.Error())
		return "", false
	}
	return ids[0], true
}

func (gw *Gateway) serveIndex(w http.ResponseWriter, r *http.Request, id string) {
	a, err := gw.poll(r.Context(), id)
	switch {
	case errors.Is(err, ErrIDInUse):
		refuse(w, http.StatusConflict, fmt.Sprintf("%q is a member of the group already, and not through bloc: give each its own session id", id))
		return
	case err != nil:
		away(w, err.Error())
		return
	}
	var written bool
	switch {
	case a.Draining:
		written = away(w, ErrDraining.Error())
	case a.Settled:
		// Once the client has it, it believes it: the machine has counted from before.
		written = send(w, http.StatusOK, `{"status": "SETTLED", "index": `+strconv.Itoa(a.Index)+`, "total": `+strconv.Itoa(a.Total)+`}`)
	default:
		written = send(w, http.StatusOK, `{"status": "SETTLING"}`)
	}
	if a.from != nil && written {
		a.from.told(a.Seq)
	}
}

func (gw *Gateway) serveSession(w http.ResponseWriter, r *http.Request, id string) {
	switch err := gw.remove(r.Context(), id); {
	case errors.Is(err, ErrNoSession), errors.Is(err, ErrIDInUse):
		refuse(w, http.StatusNotFound, ErrNoSession.Error())
	case err != nil:
		away(w, err.Error())
	default:
		send(w, http.StatusOK, "{}")
	}
}

// send writes an answer and says whether all of it has left this process.
func send(w http.ResponseWriter, code int, body string) bool {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	if _, err := io.WriteString(w, body); err != nil {
		return false
	}
	return http.NewResponseController(w).Flush() == nil
}

func refuse(w http.ResponseWriter, code int, why string) bool {
	text, err := json.Marshal(why)
	if err != nil {
		text = []byte(`"refused"`) // cannot be: it is a string
	}
	return send(w, code, `{"error": `+string(text)+`}`)
}

// away sends the client to another gateway, or to come again.
func away(w http.ResponseWriter, why string) bool {
	w.Header().Set("Connection", "close")
	w.Header().Set("Retry-After", "1")
	return refuse(w, http.StatusServiceUnavailable, why)
}

// A Door is what is served before the gateway is open: that it is not yet. So clients, and what balances their load, go elsewhere at once.
type Door struct{ gw atomic.Pointer[Gateway] }

// Open lets clients in.
func (d *Door) Open(gw *Gateway) { d.gw.Store(gw) }

func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if gw := d.gw.Load(); gw != nil {
		gw.ServeHTTP(w, r)
		return
	}
	away(w, "the gateway is not a member of its group yet")
}

// Bounds of the HTTP server. A client's request is two hundred bytes, and its answer fewer.
const (
	headerTime = 5 * time.Second // for all headers of a request to arrive
	wholeTime  = 10 * time.Second
	headerSize = 8 << 10
	idleTime   = 5 * time.Minute
)

// Server is an HTTP server for a gateway, bounded in everything that a client could keep it busy with.
func Server(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: wholeTime, WriteTimeout: wholeTime, IdleTimeout: idleTime,
		MaxHeaderBytes: headerSize, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
}

// Limit bounds how many connections are open at a time: what is more is closed at once, so that nobody waits behind it.
func Limit(l net.Listener, most int) net.Listener {
	return &limited{Listener: l, free: make(chan struct{}, most)}
}

type limited struct {
	net.Listener
	free chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &counted{Conn: c, end: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			_ = c.Close() // nothing was said on it
		}
	}
}

type counted struct {
	net.Conn
	end func()
}

func (c *counted) Close() error {
	defer c.end()
	return c.Conn.Close()
}
