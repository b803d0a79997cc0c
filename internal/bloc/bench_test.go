package bloc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/testenv"
)

// BenchmarkSessions: clients that all come at once, on one gateway, at the default lease: until each was told SETTLED, and what a session costs.
func BenchmarkSessions(b *testing.B) {
	for _, n := range []int{300, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				sessions(b, n)
			}
		})
	}
}

func sessions(b *testing.B, n int) {
	srv := testenv.Real(b)
	nc := srv.Connect("gateway", quorate.Options(0)...)
	ctx := context.Background()
	log := slog.New(slog.DiscardHandler)
	ns, err := quorate.Open(ctx, nc, quorate.Config{Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close(ctx)
	gw, err := Open(ctx, ns, "g", Config{Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	routines := runtime.NumGoroutine()
	all := newBeliefs(b)
	clients, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		c := newClient(all, fmt.Sprintf("client-%d", i), gw.cfg.Interval, http.Handler(gw))
		wg.Go(func() { c.Run(clients) })
	}
	for !all.Whole(n) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-clients.Done():
		}
		if time.Since(began) > 2*time.Minute {
			b.Fatal("not settled")
		}
	}
	b.ReportMetric(time.Since(began).Seconds(), "s-to-settled")
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/float64(n)/1024, "KiB/session")
	b.ReportMetric(float64(runtime.NumGoroutine()-routines)/float64(n), "goroutines/session")
	stop()
	wg.Wait()
	began = time.Now()
	if err := gw.Close(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(began).Seconds(), "s-to-close")
}

// BenchmarkPoll: what a question costs the gateway, without the socket: on the gateway that has the session, and through another.
func BenchmarkPoll(b *testing.B) {
	srv := testenv.Real(b)
	ctx := context.Background()
	log := slog.New(slog.DiscardHandler)
	var gws []*Gateway
	for i := range 2 {
		ns, err := quorate.Open(ctx, srv.Connect(fmt.Sprint("gateway ", i)), quorate.Config{Logger: log})
		if err != nil {
			b.Fatal(err)
		}
		defer ns.Close(ctx)
		gw, err := Open(ctx, ns, "g", Config{Logger: log})
		if err != nil {
			b.Fatal(err)
		}
		gws = append(gws, gw)
	}
	poll := func(gw *Gateway) int {
		code, _, err := ask(ctx, gw, http.MethodGet, "/index", "a")
		if err != nil {
			b.Fatal(err)
		}
		return code
	}
	for gws[0].local("a") == nil || !gws[0].local("a").member.Load() {
		poll(gws[0])
	}
	for i, name := range []string{"local", "forwarded"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if code := poll(gws[i]); code != http.StatusOK {
					b.Fatal(code)
				}
			}
		})
	}
}
