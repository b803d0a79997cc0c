package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/leader"
)

// clusterServer is one of three servers of `quorate server`, with its defaults: synced. Its directory is the cluster's file.
func clusterServer(ctx context.Context, a childArgs) (role, error) {
	c, err := embedded.ReadCluster(a.Dir)
	if err != nil {
		return role{}, err
	}
	s, err := embedded.StartCluster(ctx, c, embedded.ClusterOptions{Local: a.Name})
	if err != nil {
		return role{}, err
	}
	return role{ready: s.URL(), end: func() {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		_ = s.Close(ctx) // its directory goes away with the run
	}}, nil
}

// etcdMember is one of three members of etcd, with its defaults but for quiet logs and its ports. Peer lists all: a=http://...,b=...
func etcdMember(_ context.Context, a childArgs) (role, error) {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = a.Name, a.Dir, a.Peer
	cfg.LogLevel, cfg.LogOutputs = "error", []string{"stderr"}
	for name := range strings.SplitSeq(a.Peer, ",") {
		if name, peer, _ := strings.Cut(name, "="); name == a.Name {
			u, err := url.Parse(peer)
			if err != nil {
				return role{}, err
			}
			cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*u}, []url.URL{*u}
		}
	}
	free := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{free}, []url.URL{free}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return role{}, err
	}
	// As with the other side: that it listens, not that there is a majority.
	return role{ready: "http://" + e.Clients[0].Addr().String(), end: e.Close}, nil
}

// freePorts are ports of this machine that nobody had a moment ago.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// trio starts three servers of one side, each a process of its own, with empty stores. It returns when all listen.
func (b *bench) trio(ctx context.Context, side string) (urls string, ps []*process, err error) {
	dir, err := os.MkdirTemp(b.dir, side+"-")
	if err != nil {
		return "", nil, err
	}
	ports, err := freePorts(6)
	if err != nil {
		return "", nil, err
	}
	names := []string{"a", "b", "c"}
	args := make([]childArgs, 3)
	switch side {
	case "quorate":
		var machines []string
		for i, name := range names {
			machines = append(machines, fmt.Sprintf(`{"name": %q, "host": "127.0.0.1", "client_port": %d, "cluster_port": %d}`, name, ports[2*i], ports[2*i+1]))
			args[i] = childArgs{Dir: filepath.Join(dir, "cluster.json"), Name: name}
		}
		text := fmt.Sprintf(`{"machines": [%s], "store_dir": "store"}`, strings.Join(machines, ", "))
		if err := os.WriteFile(args[0].Dir, []byte(text), 0o600); err != nil {
			return "", nil, err
		}
	case "etcd":
		var peers []string
		for i, name := range names {
			peers = append(peers, fmt.Sprintf("%s=http://127.0.0.1:%d", name, ports[i]))
		}
		for i, name := range names {
			args[i] = childArgs{Dir: filepath.Join(dir, name), Name: name, Peer: strings.Join(peers, ",")}
		}
	}
	var l []string
	for i := range names {
		var u string
		p, err := b.start(ctx, side+"-member", args[i], &u)
		if err != nil {
			return "", nil, err
		}
		l, ps = append(l, u), append(ps, p)
	}
	return strings.Join(l, ","), ps, nil
}

// cluster measures on three servers what acquire and handOver measure on one, and how long three servers take until somebody leads.
func cluster(ctx context.Context, b *bench) ([]Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var first, firstE series
	var ns [2]*quorate.Namespace
	var sessions [2]*concurrency.Session
	n := pick(b, 7, 2, 1)
	for i := range n {
		last := i == n-1 // the last ones stay, for what follows
		at := time.Now()
		urls, ps, err := b.trio(ctx, "quorate")
		if err != nil {
			return nil, err
		}
		for j := range ns {
			if ns[j], err = openQuorate(ctx, urls, 0); err != nil {
				return nil, err
			}
			if j == 0 {
				if err := lead(ctx, ns[0]); err != nil {
					return nil, err
				}
				first.time(time.Since(at))
			}
		}
		at = time.Now()
		urlsE, psE, err := b.trio(ctx, "etcd")
		if err != nil {
			return nil, err
		}
		for j := range sessions {
			client, err := openEtcd(ctx, urlsE)
			if err != nil {
				return nil, err
			}
			if sessions[j], err = concurrency.NewSession(client); err != nil {
				return nil, err
			}
			if j == 0 {
				if err := concurrency.NewElection(sessions[0], "first").Campaign(ctx, "a"); err != nil {
					return nil, err
				}
				firstE.time(time.Since(at))
			}
		}
		if !last {
			for _, p := range append(ps, psE...) {
				p.kill()
				p.stop()
			}
		}
	}

	var acquired, acquiredE, passed, passedE series
	m := pick(b, 500, 100, 3)
	warm := min(m, 30)
	ours := func(i int) error {
		at := time.Now()
		e, err := leader.New(ns[0], fmt.Sprintf("acquire-%d", i), leader.Config{ID: "a"})
		if err != nil {
			return err
		}
		t, err := e.Campaign(ctx)
		if err != nil {
			return err
		}
		if i >= warm {
			acquired.time(time.Since(at))
		}
		return errors.Join(t.Resign(ctx), e.Close(ctx))
	}
	theirs := func(i int) error {
		at := time.Now()
		e := concurrency.NewElection(sessions[0], fmt.Sprintf("acquire-%d", i))
		if err := e.Campaign(ctx, "a"); err != nil {
			return err
		}
		if i >= warm {
			acquiredE.time(time.Since(at))
		}
		return e.Resign(ctx)
	}
	if err := b.byTurns(ctx, m+warm, ours, theirs); err != nil {
		return nil, err
	}
	if err := passes(ctx, b, ns, sessions, &passed, &passedE); err != nil {
		return nil, err
	}
	return []Row{
		{What: "three servers, from their start to the first leader", Unit: "ms", Quorate: first.stat(), Peer: "etcd", Theirs: firstE.stat(), Targets: []Target{{"p50", 2000}},
			Note: "from the first process, with empty stores: connect, make the bucket with three replicas, campaign (etcd: session and election)"},
		{What: "acquire on three servers, never held before", Unit: "ms", Quorate: acquired.stat(), Peer: "etcd", Theirs: acquiredE.stat(),
			Note: "each write synced on two of three; all on one disk here"},
		{What: "hand-over on three servers, the candidate waits", Unit: "ms", Quorate: passed.stat(), Peer: "etcd", Theirs: passedE.stat(),
			Note: "two candidates with a connection each; the next has waited for 2 s and more"},
	}, nil
}

// lead wins an election once.
func lead(ctx context.Context, ns *quorate.Namespace) error {
	e, err := leader.New(ns, "first", leader.Config{ID: "a"})
	if err != nil {
		return err
	}
	t, err := e.Campaign(ctx)
	if err != nil {
		return err
	}
	return errors.Join(t.Resign(ctx), e.Close(ctx))
}

// passes hands many elections over, each once in a sweep, so that each candidate has waited for a while.
func passes(ctx context.Context, b *bench, ns [2]*quorate.Namespace, sessions [2]*concurrency.Session, q, e *series) error {
	many := pick(b, 60, 20, 2)
	var ours, theirs []*seat
	for i := range many {
		s, err := quorateSeat(ns, fmt.Sprintf("pass-%d", i))
		if err != nil {
			return err
		}
		o := etcdSeat(sessions, fmt.Sprintf("pass-%d", i))
		for _, s := range []*seat{s, o} {
			if err := s.open(ctx); err != nil {
				return err
			}
		}
		ours, theirs = append(ours, s), append(theirs, o)
	}
	one := func(s *seat, to *series, counts bool) error {
		d, err := s.pass(ctx)
		if err == nil && counts {
			to.time(d)
		}
		return err
	}
	sweeps := pick(b, 4, 2, 1)
	for sweep := range sweeps + 1 {
		if err := sleep(ctx, pick(b, settled, settled, 0)); err != nil {
			return err
		}
		err := b.byTurns(ctx, many, func(i int) error { return one(ours[i], q, sweep > 0) }, func(i int) error { return one(theirs[i], e, sweep > 0) })
		if err != nil {
			return err
		}
	}
	return nil
}

// coldStart measures the command as a user starts it: `quorate join`, from its process to its line `joined`, first where nobody serves yet, and then where
// somebody does.
func coldStart(ctx context.Context, b *bench) ([]Row, error) {
	binary := filepath.Join(b.dir, "quorate")
	build := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", binary, "./cmd/quorate")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build quorate: %w: %s", err, out)
	}
	var cold, warm series
	n := pick(b, 40, 10, 1)
	for i := range n {
		dir, err := os.MkdirTemp(b.dir, "state-")
		if err != nil {
			return nil, err
		}
		for j, to := range []*series{&cold, &warm} {
			d, end, err := joined(ctx, binary, dir, fmt.Sprintf("m%d", j))
			if end != nil {
				defer end() // the first one serves the second
			}
			if err != nil {
				return nil, err
			}
			if i > 0 || n == 1 { // the first has the program read from the disk
				to.time(d)
			}
		}
	}
	return []Row{
		{What: "`quorate join`, cold start to joined", Unit: "ms", Quorate: cold.stat(), Targets: []Target{{"p50", 150}},
			Note: "the process, its NATS server on an empty directory, the bucket, the member's record, all synced"},
		{What: "`quorate join` where another serves", Unit: "ms", Quorate: warm.stat(), Note: "the process, its connection, and the leader's answer"},
	}, nil
}

// joined starts a member and waits until it is one.
func joined(ctx context.Context, binary, dir, id string) (time.Duration, func(), error) {
	cmd := exec.CommandContext(ctx, binary, "join", "g", "--id", id, "--state-dir", dir, "-o", "json")
	cmd.Env = []string{"HOME=" + dir}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	stderr := &tail{}
	cmd.Stderr = stderr
	at := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	end := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for in := bufio.NewScanner(out); in.Scan(); {
		var l struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(in.Bytes(), &l) == nil && l.Type == "joined" {
			return time.Since(at), end, nil
		}
	}
	return 0, end, fmt.Errorf("join: no line `joined`: %s", stderr)
}
