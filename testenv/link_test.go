package testenv_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// inbox is what a subscriber has received, in order.
type inbox struct {
	mu  sync.Mutex
	got []string
}

func (i *inbox) take(m *nats.Msg) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.got = append(i.got, string(m.Data))
}

func (i *inbox) String() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return strings.Join(i.got, " ")
}

func pair(t *testing.T, e *testenv.Env) (send func(string), in *inbox, from, to *testenv.Link) {
	t.Helper()
	a, la := e.Connect("a", nats.PingInterval(time.Hour))
	b, lb := e.Connect("b", nats.PingInterval(time.Hour))
	in = &inbox{}
	if _, err := b.Subscribe("x.>", in.take); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	return func(text string) {
		t.Helper()
		if err := a.Publish("x."+text, []byte(text)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	}, in, la, lb
}

func TestCutHoldsAndHealDelivers(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		send, in, from, to := pair(t, e)
		send("1")
		from.Cut(testenv.ToServer)
		send("2")
		send("3")
		if in.String() != "1" {
			t.Fatalf("cut to the server: got %q", in)
		}
		from.Heal()
		synctest.Wait()
		if in.String() != "1 2 3" {
			t.Fatalf("healed: got %q", in)
		}
		to.Cut(testenv.ToClient)
		send("4")
		if in.String() != "1 2 3" {
			t.Fatalf("cut to the client: got %q", in)
		}
		to.HealDropping()
		send("5")
		if in.String() != "1 2 3 5" {
			t.Fatalf("healed, dropping: got %q", in)
		}
	})
}

// What was sent into a cut link arrives after the healing even if its sender has given the connection up.
func TestLateDeliveryAfterReconnect(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a, la := e.Connect("a")
		b, _ := e.Connect("b")
		in := &inbox{}
		if _, err := b.Subscribe("x", in.take); err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(); err != nil {
			t.Fatal(err)
		}
		la.Cut(testenv.Both)
		if err := a.Publish("x", []byte("late")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if a.IsConnected() {
			t.Fatal("still connected over a link that was cut 10 s ago, with pings each second")
		}
		la.Heal()
		time.Sleep(time.Second)
		if !a.IsConnected() || in.String() != "late" {
			t.Fatalf("after the healing: connected %t, got %q", a.IsConnected(), in)
		}
		la.Kill()
		time.Sleep(time.Second)
		if !a.IsConnected() || a.Stats().Reconnects != 2 {
			t.Fatalf("after Kill: connected %t, %d reconnects, want 2", a.IsConnected(), a.Stats().Reconnects)
		}
		la.Down(true)
		la.Kill()
		time.Sleep(time.Minute)
		if a.IsConnected() {
			t.Fatal("connected over a link that is down")
		}
	})
}

func TestFilterDropsDelaysAndNamesAnswers(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		send, in, _, to := pair(t, e)
		remove := to.Filter(func(f *testenv.Frame) testenv.Verdict {
			switch f.Subject {
			case "x.drop":
				return testenv.Drop
			case "x.late":
				return testenv.Delay(time.Second)
			}
			return testenv.Pass
		})
		for _, s := range []string{"1", "drop", "late", "2"} {
			send(s)
		}
		if in.String() != "1 2" {
			t.Fatalf("got %q", in)
		}
		time.Sleep(time.Second + 1)
		if in.String() != "1 2 late" {
			t.Fatalf("a second later: got %q", in)
		}
		remove()
		send("drop")
		if in.String() != "1 2 late drop" {
			t.Fatalf("without the filter: got %q", in)
		}

		c, lc := e.Connect("c")
		var mu sync.Mutex
		var seen []string
		lc.Filter(func(f *testenv.Frame) testenv.Verdict {
			if f.IsMessage() && f.Answers != "" {
				mu.Lock()
				seen = append(seen, fmt.Sprintf("%s %q to %s, ack %t", f.Verb, f.Payload, f.Answers, f.IsAck()))
				mu.Unlock()
			}
			return testenv.Pass
		})
		if _, err := c.Subscribe("svc", func(m *nats.Msg) {
			r := nats.NewMsg(m.Reply)
			r.Header.Set("H", "v")
			r.Data = []byte("pong\r\nMSG x 1 4")
			_ = m.RespondMsg(r)
		}); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Request("svc", []byte("ping"), time.Second); err != nil || string(m.Data) != "pong\r\nMSG x 1 4" || m.Header.Get("H") != "v" {
			t.Fatalf("request: %+v, %v", m, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(seen) != 1 || seen[0] != `HMSG "pong\r\nMSG x 1 4" to svc, ack false` {
			t.Fatalf("answers seen: %q", seen)
		}
	})
}

// Random bytes around payloads must not confuse the link.
func TestLinkCarriesEverything(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		a, _ := e.Connect("a")
		sub, err := a.SubscribeSync("data")
		if err != nil {
			t.Fatal(err)
		}
		for size := range 300 {
			data := make([]byte, size*37)
			for i := range data {
				data[i] = "\r\nMSG 1\x00"[(i*size+i)%8]
			}
			m := &nats.Msg{Subject: "data", Data: data}
			if size%2 == 1 {
				m.Header = nats.Header{"K": {strings.Repeat("v", size)}}
			}
			if err := a.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
			got, err := sub.NextMsg(time.Second)
			if err != nil || string(got.Data) != string(data) || got.Header.Get("K") != m.Header.Get("K") {
				t.Fatalf("size %d: %v", size, err)
			}
		}
	})
}

// Ten members, a hundred cuts and an hour of virtual time: quick, and nothing is left behind (the bubble checks).
func TestManyLinks(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		conns, links := make([]*nats.Conn, 10), make([]*testenv.Link, 10)
		for i := range conns {
			conns[i], links[i] = e.Connect(fmt.Sprint(i))
		}
		for i := range 100 {
			l := links[i%10]
			switch i % 3 {
			case 0:
				l.Cut(testenv.Both)
			case 1:
				l.Cut(testenv.ToClient)
			default:
				l.Kill()
			}
			time.Sleep(18 * time.Second)
			l.Heal()
			time.Sleep(18 * time.Second)
		}
		for i, nc := range conns {
			if !nc.IsConnected() {
				t.Errorf("%d is not connected", i)
			}
		}
	})
}
