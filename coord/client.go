package coord

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
)

// A Client looks at a group and speaks to it without being in its roster. Make it with [Open]; a [Group] is one too.
type Client struct {
	in     *inner.Namespace
	nc     *nats.Conn
	group  string
	log    *slog.Logger
	self   *Group // the member, if it is one
	forget func()
	closed chan struct{}
	once   sync.Once // closes it
}

func newClient(in *inner.Namespace, group string) *Client {
	return &Client{in: in, nc: in.Store.Conn(), group: group, log: inner.InGroup(in.Log, group, "", &inner.Known{}), forget: func() {}, closed: make(chan struct{})}
}

// Open makes a client of a group, which need not exist yet.
func Open(ctx context.Context, ns *quorate.Namespace, group string) (*Client, error) {
	if err := wire.CheckGroup(group); err != nil {
		return nil, fmt.Errorf("coord: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("coord: open group %q: %w", group, err)
	}
	c := newClient(ns.Inner(), group)
	var ok bool
	if c.forget, ok = ns.Inner().Track(func(context.Context) error { c.Close(); return nil }); !ok {
		return nil, fmt.Errorf("coord: open group %q: %w", group, quorate.ErrClosed)
	}
	return c, nil
}

// Close ends the client's iterators. For a member it does nothing: see [Group.Leave].
func (c *Client) Close() {
	if c.self != nil {
		return
	}
	c.forget()
	c.once.Do(func() { close(c.closed) })
}

// Name of the group.
func (c *Client) Name() string { return c.group }

// Status of a member.
const (
	Alive   = "alive"   // the leader hears it
	Late    = "late"    // it misses heartbeats, or says that it runs late
	Unknown = "unknown" // no leader can tell, or can tell yet
)

// A Member is one line of the roster.
type Member struct {
	ID          string
	Incarnation uint64
	Status      string // alive, late or unknown
	Leader      bool
	Roles       []string
	Index       int       // of its assignment; -1: none
	Joined      time.Time // by its own wall clock
	LastSeen    time.Time // by the leader's wall clock; zero if it is not known
	Meta        map[string]string
	Host        string
	PID         int
	Version     string
}

// A Roster is a group as its leader sees it.
type Roster struct {
	Members    []Member // in the order of their ids
	Leader     string   // "" when there is none
	Token      uint64   // of the leader's term
	Phase      string   // settled, settling, idle; not-quorate below the minimum size; "" without a leader
	Generation uint64
	Total      int
	Map        string
}

// Members lists the group's members: as the leader sees them, or, when there is none, as their records say, with the status
// unknown.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	r, err := c.Roster(ctx)
	return r.Members, err
}

// Roster is [Client.Members] with what the leader says about the group.
func (c *Client) Roster(ctx context.Context) (Roster, error) {
	r, err := c.askRoster(ctx)
	if err == nil {
		return fromWire(r), nil
	}
	if ctx.Err() != nil || !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, context.DeadlineExceeded) {
		return Roster{}, fmt.Errorf("coord: roster of group %q: %w", c.group, err)
	}
	l, err := c.in.Store.List(ctx, wire.MemberPrefix(c.group)+"*")
	if err != nil {
		return Roster{}, fmt.Errorf("coord: roster of group %q: %w", c.group, err)
	}
	out := Roster{Members: []Member{}}
	for _, e := range l {
		var rec wire.Member
		if e.Op == kv.Record && wire.Decode(e.Value, &rec) == nil {
			out.Members = append(out.Members, member(rec))
		}
	}
	return out, nil
}

// askRoster asks the leader. The answer of a large group comes in several messages. One that is there but does not answer in
// time, because it is paused or cannot prove its lease, is no leader.
func (c *Client) askRoster(ctx context.Context) (all wire.Roster, err error) {
	ctx, cancel := context.WithTimeout(ctx, max(c.in.Lease/3, 200*time.Millisecond))
	defer cancel()
	sub, err := c.nc.SubscribeSync(c.nc.NewInbox())
	if err != nil {
		return all, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := c.nc.PublishRequest(wire.GroupSubject(c.in.Name, c.group, wire.SubRoster), sub.Subject, nil); err != nil {
		return all, err
	}
	for first := true; ; first = false {
		m, err := sub.NextMsgWithContext(ctx)
		switch {
		case err != nil:
			return all, err
		case len(m.Data) == 0 && m.Header.Get("Status") == "503":
			return all, nats.ErrNoResponders
		}
		var r wire.Roster
		if err := wire.Decode(m.Data, &r); err != nil {
			return all, err
		}
		switch {
		case first:
			all = r
		case r.Token != all.Token:
			continue // of another leader
		default:
			all.Members, all.More = append(all.Members, r.Members...), r.More
		}
		if !all.More {
			return all, nil
		}
	}
}

func fromWire(r wire.Roster) Roster {
	if r.Leader == "" {
		r.Token = 0 // of a process that keeps the group, and leads nobody
	}
	out := Roster{Leader: r.Leader, Token: r.Token, Phase: r.Phase, Generation: r.Generation, Total: r.Total, Map: r.Map, Members: make([]Member, 0, len(r.Members))}
	for _, rm := range r.Members {
		m := member(rm.Member)
		m.Status, m.Leader = rm.Status, rm.Leader
		if rm.Index != nil {
			m.Index = *rm.Index
		}
		m.LastSeen, _ = time.Parse(time.RFC3339Nano, rm.LastSeen) // display only
		out.Members = append(out.Members, m)
	}
	return out
}

func member(rec wire.Member) Member {
	m := Member{ID: rec.ID, Incarnation: rec.Incarnation, Status: Unknown, Roles: rec.Roles, Index: -1, Meta: rec.Meta, Host: rec.Host, PID: rec.PID, Version: rec.Version}
	m.Joined, _ = time.Parse(time.RFC3339Nano, rec.Joined) // display only
	return m
}

// Leader reads who leads the group. A leader that has died is named until another takes over.
func (c *Client) Leader(ctx context.Context) (leader.State, error) {
	e, err := c.in.Store.Read(ctx, wire.LeaderKey(c.group))
	if err != nil {
		return leader.State{}, fmt.Errorf("coord: leader of group %q: %w", c.group, err)
	}
	return leader.StateOf(e), nil
}

// Namespace is for quorate's own packages: the namespace of the group.
func (c *Client) Namespace() *inner.Namespace { return c.in }

// Groups lists the groups of a namespace that have members or a leader, in the order of their names.
func Groups(ctx context.Context, ns *quorate.Namespace) ([]string, error) {
	in := ns.Inner()
	seen := map[string]bool{}
	for _, pattern := range []string{wire.LeaderKeys, wire.MemberKeys} {
		l, err := in.Store.List(ctx, pattern)
		if err != nil {
			return nil, fmt.Errorf("coord: list groups: %w", err)
		}
		for _, e := range l {
			if e.Op != kv.Record {
				continue
			}
			if g, ok := wire.GroupOfLeaderKey(e.Key); ok {
				seen[g] = true
			} else if g, _, ok := wire.GroupOfMemberKey(e.Key); ok {
				seen[g] = true
			}
		}
	}
	return sorted(seen), nil
}
