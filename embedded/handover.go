package embedded

import (
	"context"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	handOverMost = 10 * time.Second       // a stop waits no longer than that for others to take over
	handOverPoll = 5 * time.Millisecond   // between looks
	handOverTry  = 500 * time.Millisecond // before the same group is handed over once more
)

// handOver gives what this server leads to others, and waits until they lead it (R35: the server's own lame-duck mode ends JetStream at once). A group
// whose leader just goes is without one for some seconds (R36), in which nobody can renew a lease.
//
// What nobody else can lead, as the others are away, is left: to step down from it would only lose the leader that it has.
func (s *Server) handOver() {
	if !s.ns.JetStreamIsClustered() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOverMost)
	defer cancel()
	asked := map[string]time.Time{}
	for {
		waiting := 0
		for _, g := range s.groups() {
			at, done := asked[g.key()]
			switch {
			case g.leads && g.others && time.Since(at) > handOverTry:
				asked[g.key()] = time.Now()
				s.stepDown(ctx, g)
				waiting++
			case g.leads && g.others, done && g.leaderless:
				waiting++
			}
		}
		if waiting == 0 {
			return
		}
		select {
		case <-ctx.Done():
			s.log.Warn("embedded: stopping, though others do not lead yet", "server", s.Name(), "groups", waiting)
			return
		case <-time.After(handOverPoll):
		}
	}
}

// A led is a Raft group with a replica on this server.
type led struct {
	account, stream string // "" is the meta group
	leads           bool   // this server leads it
	others          bool   // and another one could
	leaderless      bool
}

func (l led) key() string { return l.account + "\x00" + l.stream }

func (s *Server) groups() []led {
	info, err := s.ns.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Limit: -1})
	if err != nil || info.Meta == nil {
		return nil
	}
	able := func(peers []*server.PeerInfo) bool {
		for _, p := range peers {
			if p.Current && !p.Offline {
				return true
			}
		}
		return false
	}
	var l []led
	for _, a := range info.AccountDetails {
		for _, st := range a.Streams {
			if c := st.Cluster; c != nil && len(c.Replicas) > 0 {
				l = append(l, led{a.Id, st.Name, c.Leader == s.Name(), able(c.Replicas), c.Leader == ""})
			}
		}
	}
	// The last, as it decides on nothing that the others need.
	if s.system != nil {
		l = append(l, led{leads: info.Meta.Leader == s.Name(), others: able(info.Meta.Replicas), leaderless: info.Meta.Leader == ""})
	}
	return l
}

// stepDown has another server lead the group. Whether that worked shows the next look.
func (s *Server) stepDown(ctx context.Context, g led) {
	if g.stream != "" {
		if err := s.ns.JetStreamStepdownStream(g.account, g.stream); err != nil {
			s.log.Debug("embedded: step down", "stream", g.stream, "error", err)
		}
		return
	}
	// There is no call for the meta group, but a request of the system account.
	nc, err := nats.Connect("", append(s.SystemOptions(), nats.NoReconnect(), nats.Name("quorate server"))...)
	if err == nil {
		defer nc.Close()
		_, err = nc.RequestWithContext(ctx, server.JSApiLeaderStepDown, nil)
	}
	if err != nil {
		s.log.Debug("embedded: step down", "group", "meta", "error", err)
	}
}
