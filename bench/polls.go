package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/bloc"
)

// An answerer is where the gateway of a process answers, and where the same server answers the same without one.
type answerer struct{ Gateway, Plain string }

// gatewayRole is a process that serves bloc's HTTP as `quorate bloc` does.
func gatewayRole(ctx context.Context, a childArgs) (role, error) {
	ns, err := openQuorate(ctx, a.URL, a.Lease)
	if err != nil {
		return role{}, err
	}
	gw, err := bloc.Open(ctx, ns, a.Name, bloc.Config{Logger: quiet})
	if err != nil {
		return role{}, err
	}
	plain := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status": "SETTLED", "index": 100, "total": 300}`) // who is gone does not read it
	})
	var at [2]string
	for i, h := range []http.Handler{gw, plain} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return role{}, err
		}
		srv := bloc.Server(h, quiet)
		go func() { _ = srv.Serve(l) }() // it ends with the process
		at[i] = l.Addr().String()
	}
	return role{ready: answerer{at[0], at[1]}}, nil
}

// A poller is one client of bloc: a connection that is kept, and one question at a time.
type poller struct {
	addr    string
	conn    net.Conn
	in      *bufio.Reader
	request []byte
}

func newPoller(addr, id string) (*poller, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &poller{addr, c, bufio.NewReader(c), []byte("GET /index HTTP/1.1\r\nHost: bench\r\nBloc-Session-ID: " + id + "\r\n\r\n")}, nil
}

// poll asks once; over a new connection if the server has closed the one before, which was idle for too long.
func (p *poller) poll() (body string, err error) {
	body, err = p.ask()
	if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		return body, err
	}
	p.conn.Close()
	if p.conn, err = net.Dial("tcp", p.addr); err != nil {
		return "", err
	}
	p.in.Reset(p.conn)
	return p.ask()
}

// ask does it by hand: Go's client would take more of the machine than the server that is measured.
func (p *poller) ask() (body string, err error) {
	if _, err := p.conn.Write(p.request); err != nil {
		return "", err
	}
	head, err := p.in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	ok := bytes.HasPrefix(head, []byte("HTTP/1.1 200 "))
	length := 0
	for {
		l, err := p.in.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		if len(l) <= 2 {
			break
		}
		if v, found := bytes.CutPrefix(l, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return "", err
			}
		}
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(p.in, b); err != nil {
		return "", err
	}
	if !ok {
		return "", fmt.Errorf("answer %q", b)
	}
	return string(b), nil
}

// pollersRole is a process with many clients of one gateway. "settle" asks in bloc's way until each has an index; "poll MS" asks as fast as is
// answered.
func pollersRole(ctx context.Context, a childArgs) (role, error) {
	ps := make([]*poller, a.N)
	for i := range ps {
		p, err := newPoller(a.Peer, fmt.Sprintf("client-%d", i))
		if err != nil {
			return role{}, err
		}
		ps[i] = p
	}
	return role{answer: func(ask context.Context, command string) (any, error) {
		verb, ms, _ := strings.Cut(command, " ")
		if verb == "settle" {
			began := time.Now()
			err := each(ask, len(ps), len(ps), func(ctx context.Context, i int) error {
				for {
					b, err := ps[i].poll()
					if err != nil || strings.Contains(b, `"SETTLED"`) && strings.Contains(b, fmt.Sprintf(`"total": %d`, len(ps))) {
						return err
					}
					if err := sleep(ctx, a.Lease/4); err != nil {
						return err
					}
				}
			})
			return time.Since(began).Seconds(), err
		}
		n, err := strconv.Atoi(ms)
		if err != nil {
			return nil, err
		}
		var answers atomic.Uint64
		var wg sync.WaitGroup
		failed := make(chan error, len(ps))
		began := time.Now()
		for _, p := range ps {
			wg.Go(func() {
				for time.Since(began) < time.Duration(n)*time.Millisecond {
					if _, err := p.poll(); err != nil {
						failed <- err
						return
					}
					answers.Add(1)
				}
			})
		}
		wg.Wait()
		r := rate{Answers: answers.Load(), Took: time.Since(began)}
		select {
		case err := <-failed:
			return r, err
		default:
			return r, nil
		}
	}}, nil
}

// polls measures how many polls of bloc's clients one gateway answers in a second, and how many requests the HTTP server beneath it does.
func polls(ctx context.Context, b *bench) ([]Row, error) {
	_, url, err := b.server(ctx, "nats")
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, n := range []int{pick(b, 300, 100, 5), pick(b, 1000, 300, 10)} {
		a := childArgs{System: "quorate", URL: url, Name: fmt.Sprintf("bloc-%d", n), N: n, Lease: quorate.DefaultLease}
		var at answerer
		gateway, err := b.start(ctx, "bloc-gateway", a, &at)
		if err != nil {
			return nil, err
		}
		a.Peer = at.Gateway
		ours, err := b.start(ctx, "pollers", a, nil)
		if err != nil {
			return nil, err
		}
		a.Peer = at.Plain
		theirs, err := b.start(ctx, "pollers", a, nil)
		if err != nil {
			return nil, err
		}
		var until float64
		if err := ours.ask(ctx, "settle", &until); err != nil {
			return nil, err
		}
		var polled, plain series
		var cpu, answers float64
		command := fmt.Sprintf("poll %d", pick(b, 1500, 800, 50))
		one := func(p *process, to *series) error {
			before, err := gateway.usage(ctx)
			if err != nil {
				return err
			}
			var r rate
			if err := p.ask(ctx, command, &r); err != nil {
				return err
			}
			after, err := gateway.usage(ctx)
			if p == ours {
				cpu += float64(after.CPU-before.CPU) / float64(time.Microsecond)
				answers += float64(r.Answers)
			}
			to.add(float64(r.Answers) / r.Took.Seconds())
			return err
		}
		if err := b.byTurns(ctx, pick(b, 4, 2, 1), func(int) error { return one(ours, &polled) }, func(int) error { return one(theirs, &plain) }); err != nil {
			return nil, err
		}
		if answers == 0 {
			return nil, errors.New("no poll was answered")
		}
		rows = append(rows, Row{What: fmt.Sprintf("bloc gateway, %d clients: polls answered", n), Unit: "a second", More: true, Quorate: polled.stat(),
			Peer: "plain net/http", Theirs: plain.stat(),
			Note: fmt.Sprintf("each client a session and a connection that is kept; all had their indexes %.1f s after the first had asked; %.0f µs of the gateway's processor time each, the members' heartbeats included; server, gateway and clients share the cores", until, cpu/answers)})
		for _, p := range []*process{ours, theirs} {
			p.stop()
		}
		gateway.kill()
		gateway.stop()
	}
	return rows, nil
}
