package quorate_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
)

// plain are the options of nats.Connect(url) without any, over those of testenv.
func plain() []nats.Option {
	d := nats.GetDefaultOptions()
	return []nats.Option{nats.MaxReconnects(d.MaxReconnect), nats.ReconnectWait(d.ReconnectWait), nats.ReconnectJitter(d.ReconnectJitter, d.ReconnectJitterTLS),
		nats.PingInterval(d.PingInterval), nats.MaxPingsOutstanding(d.MaxPingsOut), nats.ReconnectBufSize(d.ReconnectBufSize)}
}

// What a setting costs is logged once for each namespace, with its name and the remedy; the remedies cost nothing.
func TestCostlySettingsAreTold(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		told := func(lease time.Duration, opts ...nats.Option) []string {
			t.Helper()
			nc, _ := e.Connect("x", opts...)
			var b bytes.Buffer
			log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}}))
			ns, err := quorate.OpenWith(t.Context(), nc, quorate.Config{Lease: lease, Logger: log}, inner.Options{Memory: true})
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close(context.WithoutCancel(t.Context()))
			var lines []string
			for line := range strings.Lines(b.String()) {
				if strings.Contains(line, "connection setting") {
					lines = append(lines, line)
				}
			}
			return lines
		}
		if l := told(0, quorate.Options(0)...); l != nil {
			t.Errorf("of quorate.Options: %q", l)
		}
		for _, tc := range []struct {
			name, cost, remedy string
			lease              time.Duration
			opt                nats.Option
		}{
			{"NoEcho", "groups cannot be joined", "connect without it", 0, nats.NoEcho()},
			{"NoReconnect", "first disconnect ends", "nats.MaxReconnects(-1)", 0, nats.NoReconnect()},
			{"MaxReconnects", "7 failed tries", "nats.MaxReconnects(-1)", 0, nats.MaxReconnects(7)},
			{"quorate.Options", "lease of 3s, and the namespace's is 1s: a dead server is noticed after 1.8s", "quorate.Options(1s)", time.Second, nil},
			{"PingInterval", "noticed after up to 30s", "nats.PingInterval(600ms), nats.MaxPingsOutstanding(2)", 0, func(o *nats.Options) error {
				o.PingInterval, o.RetryOnFailedConnect, o.MaxPingsOut = 10*time.Second, false, 2
				o.MaxReconnect = -2
				return nil
			}},
			{"PingInterval", "may never be noticed", "nats.PingInterval(600ms)", 0, nats.PingInterval(-1)},
			{"ReconnectWait", "3s >= member timeout/2 = 3s", "nats.ReconnectWait(250ms)", 0, func(o *nats.Options) error {
				o.CustomReconnectDelayCB, o.ReconnectWait = nil, 3*time.Second
				return nil
			}},
			{"ReconnectBufSize", "arrive after it, however late", "nats.ReconnectBufSize(-1)", 0, nats.ReconnectBufSize(8 << 20)},
			{"RetryOnFailedConnect", "wrong address", "connect without it", 0, nats.RetryOnFailedConnect(true)},
			{"UseOldRequestStyle", "a subscription of its own", "connect without it", 0, nats.UseOldRequestStyle()},
		} {
			opts := quorate.Options(0)
			if tc.opt != nil {
				opts = append(opts, tc.opt)
			}
			l := told(tc.lease, opts...)
			if len(l) != 1 || !strings.Contains(l[0], "connection setting: "+tc.name+": ") || !strings.Contains(l[0], tc.cost) || !strings.Contains(l[0], tc.remedy) {
				t.Errorf("%s: told %q", tc.name, l)
			}
			if ends := tc.name == "NoEcho" || tc.name == "NoReconnect" || tc.name == "MaxReconnects"; len(l) == 1 && ends != strings.HasPrefix(l[0], "level=WARN") {
				t.Errorf("%s: %q", tc.name, l[0])
			}
		}
		if l := strings.Join(told(0, plain()...), ""); strings.Count(l, "\n") != 3 || !strings.Contains(l, "outage of about 2m0s (60 tries)") {
			t.Errorf("a plain connection:\n%s", l)
		}
		// Check says it too when reconnecting takes too long.
		nc, _ := e.Connect("x", plain()...)
		ns, err := quorate.OpenWith(t.Context(), nc, quorate.Config{Lease: time.Second, Logger: slog.New(slog.DiscardHandler)}, inner.Options{Memory: true})
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close(context.WithoutCancel(t.Context()))
		if err := ns.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "reconnect wait 2s >= member timeout/2 = 1s") {
			t.Errorf("Check: %v", err)
		}
	})
}

// A permission that a group needs and does not have is named by Join, at once; so is one for the inboxes of a connection with a prefix of its own. An account
// without JetStream is told from a server without it.
func TestMissingPermissionsOfAGroup(t *testing.T) {
	dir := t.TempDir()
	testenv.Bubble(t, func(t *testing.T) {
		const g = "quorate.default.g.g."
		denied := map[string]string{"beats": g + "heartbeat", "all": g + "all.>", "poke": g + "poke", "member": g + "member.>", "everything": g + ">"}
		users := []*server.User{
			{Username: "whole", Password: "p"},
			{Username: "prefixed", Password: "p", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>", "mine.>"}}}},
			{Username: "own", Password: "p", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}}},
		}
		for name, subject := range denied {
			users = append(users, &server.User{Username: name, Password: "p", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{subject}}, Subscribe: &server.SubjectPermission{Deny: []string{subject}}}})
		}
		account := server.NewAccount("poor")
		users = append(users, &server.User{Username: "poor", Password: "p", Account: account})
		srv, err := testenv.NewServer(dir, testenv.WithUsers(users...), func(o *server.Options) { o.Accounts = []*server.Account{account} })
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Stop()
		if err := srv.Server().GlobalAccount().EnableJetStream(nil, nil); err != nil {
			t.Fatal(err)
		}
		try := func(user string, opts ...nats.Option) error {
			nc, err := nats.Connect("", append(opts, nats.InProcessServer(srv), nats.UserInfo(user, "p"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			ns, err := quorate.OpenWith(t.Context(), nc, quorate.Config{Logger: slog.New(slog.DiscardHandler)}, inner.Options{Memory: true})
			if err != nil {
				return err
			}
			defer ns.Close(context.WithoutCancel(t.Context()))
			joined, err := coord.Join(t.Context(), ns, "g", coord.Config{})
			if err != nil {
				return err
			}
			return joined.Leave(t.Context())
		}
		if err := try("whole"); err != nil {
			t.Fatal(err)
		}
		for user, subject := range denied {
			began := time.Now()
			err := try(user)
			if !errors.Is(err, quorate.ErrPermission) || !strings.Contains(err.Error(), strings.TrimSuffix(subject, ">")) || strings.Contains(err.Error(), "\n") {
				t.Errorf("without %s: %v, want ErrPermission naming it", subject, err)
			}
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("without %s: told after %v", subject, d)
			}
		}
		if err := try("own", nats.CustomInboxPrefix("mine")); err != nil {
			t.Errorf("inboxes of another prefix: %v", err)
		}
		if err := try("prefixed", nats.CustomInboxPrefix("mine")); !errors.Is(err, quorate.ErrPermission) || !strings.Contains(err.Error(), `"mine.`) {
			t.Errorf("without the inboxes of another prefix: %v", err)
		}
		if err := try("poor"); !errors.Is(err, quorate.ErrNoJetStream) || !strings.Contains(err.Error(), "account") {
			t.Errorf("an account without JetStream: %v", err)
		}
	})
}

// A connection that is closed, by its user or because its reconnects are used up, ends everything with ErrConnClosed: work is asked to return, nothing hangs, and what
// stands in the bucket runs out for the others.
func TestConnectionEnds(t *testing.T) {
	for _, how := range []string{"closed", "reconnects used up"} {
		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
			nc, link := e.Connect("x", nats.MaxReconnects(3))
			ns, err := quorate.OpenWith(t.Context(), nc, quorate.Config{Logger: slog.New(slog.DiscardHandler)}, inner.Options{Memory: true})
			if err != nil {
				t.Fatal(err)
			}
			g := group(t, ns, "a")
			p := share(t, g)
			el, err := leader.New(ns, "e", leader.Config{})
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var got []string
			var all sync.WaitGroup
			note := func(what string, err error) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, what)
				if !errors.Is(err, quorate.ErrConnClosed) {
					t.Errorf("%s: %s: %v, want ErrConnClosed", how, what, err)
				}
			}
			working := make(chan struct{}, 3)
			work := func(what string, ctx context.Context) {
				working <- struct{}{}
				<-ctx.Done()
				note("work of "+what, context.Cause(ctx))
			}
			all.Go(func() {
				note("Run", el.Run(t.Context(), func(ctx context.Context, _ *leader.Term) error { work("the term", ctx); return nil }))
			})
			all.Go(func() {
				note("Lead", g.Lead(t.Context(), func(ctx context.Context, _ *leader.Term) error { work("the leader", ctx); return nil }))
			})
			all.Go(func() {
				note("Partition", p.Run(t.Context(), func(ctx context.Context, _ *partition.Assignment) error { work("the share", ctx); return nil }))
			})
			for range 3 {
				<-working
			}
			if _, err := g.Handle("slow", func(ctx context.Context, _ coord.Message) ([]byte, error) { <-ctx.Done(); return nil, nil }); err != nil {
				t.Fatal(err)
			}
			all.Go(func() { note("Ask", second(g.Ask(t.Context(), coord.ToLeader, "slow", nil, coord.Retry))) })
			all.Go(func() { note("Gather", second(g.Gather(t.Context(), "slow", nil))) })
			all.Go(func() {
				for _, err := range g.Watch(t.Context()) {
					if err != nil {
						note("Watch", err)
					}
				}
			})
			time.Sleep(time.Second)
			began := time.Now()
			if how == "closed" {
				nc.Close()
			} else {
				link.Down(true)
				link.Kill()
			}
			<-g.Context().Done()
			note("Context", context.Cause(g.Context()))
			all.Wait()
			if d := time.Since(began); d > 2*time.Second || len(got) != 10 {
				t.Errorf("%s: after %v: %q", how, d, got)
			}
			if err := ns.Close(t.Context()); err != nil || time.Since(began) > 4*time.Second {
				t.Errorf("%s: close: %v after %v", how, err, time.Since(began))
			}
			if _, err := coord.Join(t.Context(), ns, "h", coord.Config{}); err == nil {
				t.Errorf("%s: joined after the end", how)
			}
			link.Down(false)
			b := group(t, e.Namespace(), "a") // what stood there runs out
			if !b.Live() {
				t.Error("not live")
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

var (
	plainSeed = flag.Uint64("plain.seed", 0, "seed of the random run; 0: a new one, which is printed")
	plainTime = flag.Duration("plain.time", defaultTime, "virtual time of the random run")
)

// A plain nats.Connect(url) keeps every guarantee: what is buffered during an outage and sent after it, minutes late, meets its compare-and-set. The watchers of
// testenv look on. Its finite reconnects end a process in long outages; another one takes its place.
func TestPlainConnections(t *testing.T) {
	seed := *plainSeed
	for seed == 0 {
		seed = rand.Uint64()
	}
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		t.Logf("-plain.seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 1))
		upTo := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
		const lease = 2 * time.Second
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		terms, shares, ended, late := 0, 0, 0, 0
		count := func(n *int, by int) int { mu.Lock(); defer mu.Unlock(); *n += by; return *n }
		alive := make([]*quorate.Namespace, 5)
		start := func(i int) {
			ns := e.NamespaceOver(quorate.Config{Lease: lease}, plain()...)
			alive[i] = ns
			el, err := leader.New(ns, "e", leader.Config{ID: fmt.Sprint("p", i)})
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() {
				for ctx.Err() == nil {
					err := el.Run(ctx, func(ctx context.Context, _ *leader.Term) error { count(&terms, 1); <-ctx.Done(); return nil })
					if errors.Is(err, quorate.ErrConnClosed) {
						count(&ended, 1)
						return
					}
				}
			})
			wg.Go(func() {
				g, err := coord.Join(ctx, ns, "g", coord.Config{ID: fmt.Sprint("p", i)})
				if err != nil {
					return
				}
				p, err := partition.Join(ctx, g, partition.Config{})
				if err != nil {
					return
				}
				_ = p.Run(ctx, func(ctx context.Context, _ *partition.Assignment) error { count(&shares, 1); <-ctx.Done(); return nil })
			})
		}
		for i := range alive {
			start(i)
		}
		// Goes on for longer, up to six times, while the faults have not bitten.
		const leastTerms, leastShares = 3, 10
		bitten := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return terms >= leastTerms && shares >= leastShares && late > 0 && ended > 0
		}
		for step, began := 0, time.Now(); time.Since(began) < *plainTime || !bitten() && time.Since(began) < 6**plainTime; step++ {
			time.Sleep(upTo(10 * lease))
			i := r.IntN(len(alive))
			if e.Conn(alive[i]).IsClosed() {
				start(i)
				continue
			}
			link := e.Link(alive[i])
			switch (step + r.IntN(2)) % 6 {
			case 0: // the server's side is gone, and comes back
				link.Down(true)
				link.Kill()
				time.Sleep(upTo(5 * lease))
				link.Down(false)
			case 1: // for longer than the reconnects last
				if r.IntN(4) == 0 || count(&ended, 0) == 0 {
					link.Down(true)
					link.Kill()
					time.Sleep(3 * time.Minute)
					link.Down(false)
				}
			case 2: // half open: what was sent arrives later
				link.Cut(testenv.Both)
				time.Sleep(upTo(5 * lease))
				count(&late, 1)
				link.Heal()
			case 3:
				link.Cut(testenv.ToClient)
				time.Sleep(upTo(3 * lease))
				link.Heal()
			case 4:
				link.Kill()
			case 5:
				link.DropAcks(1 + r.IntN(3))
			}
		}
		for i, ns := range alive {
			e.Link(ns).Heal()
			if e.Conn(ns).IsClosed() {
				start(i)
			}
		}
		time.Sleep(time.Minute)
		cancel()
		wg.Wait()
		t.Logf("%d terms, %d shares, %d processes ended with their connection, %d half-open times", terms, shares, ended, late)
		if !bitten() {
			t.Errorf("faults did not bite: %d terms, %d shares, %d ended, %d late", terms, shares, ended, late)
		}
	})
}

// A connection tries soon and often while there is no server. One that does not last waits longer each time, until it does: what all of them cost, each time that they come
// back together, may be why none lasts.
func TestReconnectDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease = time.Second
		connection := func() func(int) time.Duration {
			var o nats.Options
			for _, opt := range quorate.Options(lease) {
				if err := opt(&o); err != nil {
					t.Fatal(err)
				}
			}
			return o.CustomReconnectDelayCB
		}
		a, b := connection(), connection()
		wait := func(d time.Duration) time.Duration { time.Sleep(d); return d }
		for range 3 { // outages
			for i := range 200 {
				if d := wait(a(i + 1)); d > lease/12 || d < lease/24 {
					t.Fatalf("try %d of an outage: waits for %v", i+1, d)
				}
			}
			time.Sleep(2 * lease)
		}
		var last time.Duration
		for i := range 100 {
			time.Sleep(3 * lease / 5)
			last = wait(a(1))
			if limit := min(lease/12<<min(i, 10), 4*lease); last > limit || last < limit/2 {
				t.Fatalf("connection %d did not last: waits for %v, at most %v", i, last, limit)
			}
			if d := wait(a(2)); d > lease/12 {
				t.Fatalf("the server is away after that: waits for %v", d)
			}
		}
		if last < 2*lease {
			t.Errorf("the hundredth waits for %v only", last)
		}
		if d := b(1); d > lease/12 {
			t.Errorf("another connection, made with the same options, waits for %v", d)
		}
		time.Sleep(2 * lease)
		if d := a(1); d > lease/12 {
			t.Errorf("after one that has lasted it waits for %v", d)
		}
	})
}
