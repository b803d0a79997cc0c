package bloc

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/bloc/client"
	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func newBeliefs(t testing.TB) *client.Beliefs {
	return client.NewBeliefs(func(wrong string) { t.Errorf("guarantee broken: %s", wrong) })
}

// newClient makes a client that asks the handlers in turn, without sockets.
func newClient(all *client.Beliefs, id string, interval time.Duration, hs ...http.Handler) *client.Client {
	n := 0
	return client.New(all, id, interval, func(ctx context.Context, method, path, id string) (int, []byte, error) {
		code, body, err := ask(ctx, hs[n%len(hs)], method, path, id)
		if err != nil || code != http.StatusOK {
			n++
		}
		return code, body, err
	})
}

// ask is one request without a socket. A gateway that does not answer is left behind.
func ask(ctx context.Context, h http.Handler, method, path, id string) (int, []byte, error) {
	r := httptest.NewRequestWithContext(ctx, method, path, nil)
	r.Header.Set("Bloc-Session-ID", id)
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(w, r)
	}()
	select {
	case <-done:
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
		return w.Code, w.Body.Bytes(), nil
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}
