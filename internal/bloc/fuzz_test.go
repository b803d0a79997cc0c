package bloc

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
)

// FuzzHTTP: whatever bytes come as a request, what is let in is one of bloc's two, with a good id; everything else is answered as refused, with one line of JSON
// whose length is right.
func FuzzHTTP(f *testing.F) {
	for _, s := range []string{
		"GET /index HTTP/1.1\r\nHost: h\r\nBloc-Session-ID: web-1\r\n\r\n",
		"DELETE /session HTTP/1.1\r\nHost: h\r\nBloc-Session-ID: web-1\r\n\r\n",
		"GET /index HTTP/1.0\r\n\r\n",
		"GET //index?x=/session#y HTTP/1.1\r\nHost: h\r\nbloc-session-id: a\r\nBLOC-SESSION-ID: b\r\n\r\n",
		"POST http://h/index HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"GET /index HTTP/1.1\r\nHost: h\r\nBloc-Session-ID: a.b>*\x01\xff\r\n\r\n",
		"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n",
		"GET /%69ndex HTTP/1.1\r\nHost: h\r\nBloc-Session-ID: all\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return // net/http answers by itself
		}
		w := httptest.NewRecorder()
		id, ok := admit(w, r)
		if ok {
			if wire.CheckID(id) != nil || r.Method+" "+r.URL.Path != "GET /index" && r.Method+" "+r.URL.Path != "DELETE /session" || w.Body.Len() > 0 {
				t.Errorf("%q is let in as %q", data, id)
			}
			return
		}
		body := w.Body.String()
		var why struct{ Error string }
		if w.Code < 400 || w.Code > 499 || json.Unmarshal([]byte(body), &why) != nil || why.Error == "" || strings.Contains(body, "\n") || w.Header().Get("Content-Length") != strconv.Itoa(len(body)) {
			t.Errorf("%q is answered %d %q", data, w.Code, body)
		}
		closed := httptest.NewRecorder()
		new(Door).ServeHTTP(closed, r)
		if closed.Code != http.StatusServiceUnavailable {
			t.Errorf("before it is open it answers %d", closed.Code)
		}
	})
}

// FuzzAsked: whatever comes as another gateway's question, it is answered or refused; a session that does not live here has nothing told of it.
func FuzzAsked(f *testing.F) {
	for _, s := range []string{`{"v":1,"verb":"poll","session":"web-1"}`, `{"v":1,"verb":"delete","session":"web-1"}`, `{"v":2}`, `{"v":1,"verb":7}`, `[]`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		gw := &Gateway{}
		out, err := gw.asked(t.Context(), coord.Message{Data: data})
		var a answer
		if err == nil && (json.Unmarshal(out, &a) != nil || a.V != wire.Version || a.Have) {
			t.Errorf("%q is answered %q", data, out)
		}
	})
}
