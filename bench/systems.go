package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/embedded"
)

var quiet = slog.New(slog.DiscardHandler)

// natsServer is quorate's embedded server with its defaults: synced.
func natsServer(ctx context.Context, a childArgs) (role, error) {
	s, err := embedded.Start(ctx, embedded.Options{StoreDir: a.Dir})
	if err != nil {
		return role{}, err
	}
	messages := func(context.Context, string) (any, error) {
		v, err := s.NATS().Varz(nil)
		if err != nil {
			return nil, err
		}
		return v.InMsgs + v.OutMsgs, nil
	}
	return role{ready: s.URL(), answer: messages, end: func() {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		_ = s.Close(ctx) // its directory goes away with the run
	}}, nil
}

// etcdServer is etcd's embedded server with its defaults (it syncs), but for quiet logs and free ports.
func etcdServer(ctx context.Context, a childArgs) (role, error) {
	cfg := embed.NewConfig()
	cfg.Dir = a.Dir
	cfg.LogLevel, cfg.LogOutputs = "error", []string{"stderr"}
	free := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{free}, []url.URL{free}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{free}, []url.URL{free}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return role{}, err
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return role{}, err
	case <-ctx.Done():
		return role{}, ctx.Err()
	}
	return role{ready: "http://" + e.Clients[0].Addr().String(), end: e.Close}, nil
}

// servers starts one server of each side for a benchmark.
func (b *bench) servers(ctx context.Context) (natsURL, etcdURL string, err error) {
	_, natsURL, err = b.server(ctx, "nats")
	if err == nil {
		_, etcdURL, err = b.server(ctx, "etcd")
	}
	return natsURL, etcdURL, err
}

// server starts one server, "nats" or "etcd", with an empty store.
func (b *bench) server(ctx context.Context, kind string) (p *process, url string, err error) {
	b.children.mu.Lock()
	dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", kind, len(b.children.all)))
	b.children.mu.Unlock()
	p, err = b.start(ctx, kind+"-server", childArgs{Dir: dir}, &url)
	return p, url, err
}

// openQuorate is one "process" of quorate: a connection as [quorate.Options] makes it, and a namespace. It is made before
// the time is taken, unless a benchmark says otherwise.
func openQuorate(ctx context.Context, url string, lease time.Duration) (*quorate.Namespace, error) {
	nc, err := nats.Connect(url, append(quorate.Options(lease), nats.Timeout(20*time.Second))...)
	if err != nil {
		return nil, err
	}
	ns, err := quorate.Open(ctx, nc, quorate.Config{Lease: lease, Logger: quiet})
	if err != nil {
		nc.Close()
		return nil, err
	}
	context.AfterFunc(ctx, nc.Close) // the benchmark is over
	return ns, nil
}

// openEtcd is one client of etcd, with its defaults. URLs of several servers have commas between them.
func openEtcd(ctx context.Context, url string) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(url, ","), DialTimeout: 20 * time.Second, Logger: zap.NewNop(), Context: ctx})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { c.Close() })
	return c, nil
}

// openMemberlist is one member with the defaults for a LAN, on loopback.
func openMemberlist(name string, events memberlist.EventDelegate) (*memberlist.Memberlist, error) {
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.BindAddr, cfg.BindPort = name, "127.0.0.1", 0
	cfg.LogOutput, cfg.Events = io.Discard, events
	return memberlist.Create(cfg)
}

// addr is where others join a memberlist.
func addr(m *memberlist.Memberlist) string {
	n := m.LocalNode()
	return fmt.Sprintf("%s:%d", n.Addr, n.Port)
}

// joinMemberlist joins through a member, again while that one is too busy to answer.
func joinMemberlist(ctx context.Context, m *memberlist.Memberlist, peer string) error {
	for {
		_, err := m.Join([]string{peer})
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}
