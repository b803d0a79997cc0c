package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/internal/wire"
)

func raftCommand() *command {
	return &command{
		name:    "raft",
		section: sectionServe,
		summary: "show the Raft state that NATS runs beneath",
		about: "Shows, for the group of all servers (meta) and the group of each replicated stream, what every server says: its role, its term, how far it has committed " +
			"and applied, and how far the leader sees it behind and heard of it last.\n\n" +
			"That is for the system account alone. --config names the file of `quorate server`, whose system user it has or whose server has made one; on another NATS give " +
			"a user of the system account with --user and --password, --creds or --nkey.",
		flags: []flagSpec{
			{name: "watch", kind: kindBool, usage: "again each second, until interrupted"},
			{name: "config", value: "FILE", env: "QUORATE_CONFIG", usage: "the cluster's file"},
			{name: "local", value: "NAME", env: "QUORATE_LOCAL", usage: "which of the file's machines this is, if the file has no system user"},
		},
		needs: needClient,
		json:  []shape{{of: raftState{}}},
		examples: []example{
			{"quorate raft --config cluster.json", "of a cluster of `quorate server`"},
			{"quorate raft -s nats://10.0.0.1 --user system --watch", "live; the password is in NATS_PASSWORD"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: not of the system account"}, {ExitUnanswered, "no server answers within --timeout"}},
		run:   runRaft,
	}
}

// raftEvery is the time from one picture to the next.
const raftEvery = time.Second

func runRaft(ctx context.Context, c *call) error {
	nc, machines, err := c.systemConnection(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	p := c.colours(c.stdout)
	for {
		began := time.Now()
		state, err := c.raftState(ctx, nc, machines)
		if err != nil {
			if c.bool("watch") && ctx.Err() != nil {
				return nil
			}
			return err
		}
		switch {
		case c.g.json:
			err = c.printJSON(state)
		case c.bool("watch") && terminal(c.stdout):
			err = c.print("\x1b[H\x1b[2J" + state.text(c.width(), p))
		default:
			err = c.print(state.text(c.width(), p))
		}
		if err != nil || !c.bool("watch") {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(raftEvery - time.Since(began)):
		}
		if !c.g.json && !terminal(c.stdout) {
			if err := c.print("\n"); err != nil {
				return err
			}
		}
	}
}

// systemConnection connects as a user of the system account. machines are the servers that the cluster's file names, nil without one.
func (c *call) systemConnection(ctx context.Context) (nc *conn, machines []string, err error) {
	path := c.str("config")
	if path == "" {
		if c.str("local") != "" {
			return nil, nil, usageError("--local names a machine of a file: give --config too")
		}
		nc, err = c.connect(ctx)
		return nc, nil, err
	}
	cluster, err := embedded.ReadCluster(path)
	if err != nil {
		return nil, nil, failure(ExitFailed, "raft: %s", strings.TrimPrefix(err.Error(), "embedded: "))
	}
	for _, m := range cluster.Machines {
		machines = append(machines, m.Name)
	}
	user, err := cluster.SystemUser(ctx, c.str("local"))
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "embedded: ")
		if errors.Is(err, embedded.ErrNoMachine) {
			text += local(text)
		}
		return nil, nil, failure(ExitFailed, "raft: %s", text)
	}
	s := &settings{server: user.URL, user: user.User, password: string(user.Password), tlsCA: cluster.TLS.CA}
	if cluster.TLS.Verify {
		s.tlsCert, s.tlsKey = cluster.TLS.Cert, cluster.TLS.Key // a server shows it to the others as a client, too
	}
	if user.NKey != "" {
		s.user, s.password = "", ""
		if s.nkey, _ = c.setting("nkey"); s.nkey == "" {
			return nil, nil, usageError("the system user of %s has an nkey: give its seed file with --nkey", path)
		}
	}
	nc, err = c.dial(ctx, s)
	return nc, machines, err
}

// A raftState is the Raft state of all servers, as `raft -o json` shows it.
type raftState struct {
	Time    string      `json:"time" doc:"of the picture"`
	Cluster string      `json:"cluster" doc:"the cluster's name"`
	Servers []string    `json:"servers" doc:"that answered"`
	Silent  []string    `json:"silent" doc:"that others know, and that did not answer"`
	Groups  []raftGroup `json:"groups" doc:"the Raft groups"`
	Hints   []string    `json:"hints" doc:"what to do about what is wrong"`
}

// A raftGroup is the meta group, or that of one stream.
type raftGroup struct {
	Group   string       `json:"group" doc:"NATS' name of it"`
	Kind    string       `json:"kind" doc:"meta or stream"`
	Account string       `json:"account" doc:"of the stream"`
	Stream  string       `json:"stream" doc:"its name"`
	Leader  string       `json:"leader" doc:"as the leader, or else most of the servers, have it; \"\" when there is none"`
	Size    int          `json:"size" doc:"how many servers it has"`
	Quorum  int          `json:"quorum" doc:"how many of them it needs"`
	Servers []raftServer `json:"servers" doc:"what each says"`
}

// A raftServer is one server's part in a group.
type raftServer struct {
	Server      string     `json:"server" doc:"its name"`
	Role        string     `json:"role" doc:"leader, follower, candidate, observer, closed; silent: it did not answer"`
	Term        uint64     `json:"term" doc:"its term"`
	Leader      string     `json:"leader" doc:"whom it follows"`
	Commit      uint64     `json:"commit" doc:"index that it knows as committed"`
	Applied     uint64     `json:"applied" doc:"index that it has applied"`
	Index       uint64     `json:"index" doc:"of the last entry of its log"`
	Lag         *uint64    `json:"lag" doc:"entries that the leader knows it to lack; null for the leader, and without one"`
	LastContact *int64     `json:"last_contact_ms" doc:"since the leader heard of it; null likewise"`
	Peers       []raftPeer `json:"peers" doc:"what it knows of the others"`
}

// A raftPeer is another server as one server sees it.
type raftPeer struct {
	Server      string `json:"server" doc:"its name"`
	Known       bool   `json:"known" doc:"false while it is being added or removed"`
	Index       uint64 `json:"index" doc:"that it is known to have; a leader's knowledge"`
	LastContact *int64 `json:"last_contact_ms" doc:"since it was heard of; null when it is not known"`
}

// What the servers answer, as far as it is used: their own types have fields that cannot be decoded.
type (
	serverReply struct {
		Server struct {
			Name    string `json:"name"`
			ID      string `json:"id"`
			Cluster string `json:"cluster"`
		} `json:"server"`
		Data  json.RawMessage `json:"data"`
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	jszData struct {
		Meta *struct {
			Leader   string `json:"leader"`
			Replicas []struct {
				Name    string `json:"name"`
				Offline bool   `json:"offline"`
			} `json:"replicas"`
		} `json:"meta_cluster"`
		Accounts []struct {
			ID      string `json:"id"`
			Name    string `json:"name"`
			Streams []struct {
				Name  string `json:"name"`
				Group string `json:"stream_raft_group"`
			} `json:"stream_detail"`
		} `json:"account_details"`
		Total int `json:"total"`
	}
	raftzGroup struct {
		ID        string `json:"id"`
		State     string `json:"state"`
		Size      int    `json:"size"`
		Quorum    int    `json:"quorum_needed"`
		Observer  bool   `json:"observer"`
		Committed uint64 `json:"committed"`
		Applied   uint64 `json:"applied"`
		Leader    string `json:"leader"`
		Term      uint64 `json:"term"`
		Index     uint64 `json:"pindex"`
		Peers     map[string]struct {
			Name     string `json:"name"`
			Known    bool   `json:"known"`
			Index    uint64 `json:"last_replicated_index"`
			LastSeen string `json:"last_seen"`
		} `json:"peers"`
	}
	raftzData map[string]map[string]raftzGroup // account, group
)

const metaGroup = "_meta_"

// raftState asks all servers.
func (c *call) raftState(ctx context.Context, nc *conn, machines []string) (*raftState, error) {
	st := &raftState{Time: wire.Time(time.Now()), Cluster: nc.ConnectedClusterName(), Servers: []string{}, Silent: []string{}, Groups: []raftGroup{}, Hints: []string{}}
	if st.Cluster == "" {
		st.Hints = append(st.Hints, nc.where+" is not in a cluster: nothing is replicated, and there is no Raft beneath")
		return st, nil
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	streams, err := c.raftStreams(ctx, nc, st)
	if err != nil {
		return nil, err
	}
	seen := raftSeen{names: map[string]string{}, groups: map[[2]string]map[string]raftzGroup{}}
	for _, account := range append([]string{""}, slices.Sorted(maps.Keys(streams))...) { // "" is the system account itself
		if err := c.raftz(ctx, nc, st, account, seen); err != nil {
			return nil, err
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(seen.groups), func(a, b [2]string) int {
		return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(streams[a[0]][a[1]], streams[b[0]][b[1]]))
	}) {
		stream := streams[key[0]][key[1]]
		switch {
		case key[1] == metaGroup:
			st.Groups = slices.Insert(st.Groups, 0, seen.group(key, "meta", ""))
		case stream != "":
			st.Groups = append(st.Groups, seen.group(key, "stream", stream))
		} // the rest are consumers
	}
	st.hint(machines)
	return st, nil
}

// raftStreams finds which group is which stream's, by account, and who is to be asked.
func (c *call) raftStreams(ctx context.Context, nc *conn, st *raftState) (map[string]map[string]string, error) {
	streams := map[string]map[string]string{}
	const page = 1024
	for offset, total := 0, 1; offset < total; offset += page {
		known := map[string]bool{}
		err := c.askServers(ctx, nc, "JSZ", map[string]any{"accounts": true, "streams": true, "raft": true, "offset": offset, "limit": page}, func(r serverReply) (more bool, err error) {
			var d jszData
			if err := json.Unmarshal(r.Data, &d); err != nil {
				return true, err
			}
			if !slices.Contains(st.Servers, r.Server.Name) {
				st.Servers = append(st.Servers, r.Server.Name)
			}
			known[r.Server.Name] = true
			total = max(total, d.Total)
			if d.Meta != nil {
				for _, o := range d.Meta.Replicas {
					if !o.Offline {
						known[o.Name] = true
					}
				}
			}
			for _, a := range d.Accounts {
				for _, s := range a.Streams {
					if s.Group == "" {
						continue
					}
					if streams[a.ID] == nil {
						streams[a.ID] = map[string]string{}
					}
					streams[a.ID][s.Group] = s.Name
				}
			}
			return len(st.Servers) < len(known), nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(st.Servers)
	return streams, nil
}

// raftSeen is what all servers said.
type raftSeen struct {
	names  map[string]string                   // of servers, by the ids that Raft has for them
	groups map[[2]string]map[string]raftzGroup // by account and group, then by server
}

// raftz asks for the groups of one account.
func (c *call) raftz(ctx context.Context, nc *conn, st *raftState, account string, seen raftSeen) error {
	answered := 0
	return c.askServers(ctx, nc, "RAFTZ", map[string]any{"account": account}, func(r serverReply) (bool, error) {
		var d raftzData
		if err := json.Unmarshal(r.Data, &d); err != nil {
			return true, err
		}
		for acc, groups := range d {
			for name, g := range groups {
				seen.names[g.ID] = r.Server.Name
				for id, p := range g.Peers {
					if p.Name != "" {
						seen.names[id] = p.Name
					}
				}
				key := [2]string{acc, name}
				if seen.groups[key] == nil {
					seen.groups[key] = map[string]raftzGroup{}
				}
				seen.groups[key][r.Server.Name] = g
			}
		}
		answered++
		return answered < len(st.Servers), nil
	})
}

// raftQuiet is how long nobody may answer before those who have not are taken for silent.
const raftQuiet = 500 * time.Millisecond

// askServers asks all servers one question of the system account, until each says that no more are wanted, or all are quiet.
func (c *call) askServers(ctx context.Context, nc *conn, what string, question any, reply func(serverReply) (more bool, err error)) error {
	data, err := json.Marshal(question)
	if err != nil {
		return err
	}
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return c.failed(ctx, err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection is closed, then
	if err := nc.PublishRequest("$SYS.REQ.SERVER.PING."+what, inbox, data); err != nil {
		return c.failed(ctx, err)
	}
	for n := 0; ; n++ {
		wait, cancel := ctx, context.CancelFunc(func() {})
		if n > 0 {
			wait, cancel = context.WithTimeout(ctx, raftQuiet)
		}
		msg, err := sub.NextMsgWithContext(wait)
		cancel()
		switch {
		case errors.Is(err, nats.ErrNoResponders) || err == nil && len(msg.Data) == 0 && msg.Header.Get("Status") == "503":
			return failure(ExitFailed, "raft: %s does not let this user see it: give a user of the system account (--user, --creds, --nkey), or --config for a cluster of `quorate server`", nc.where)
		case errors.Is(err, context.DeadlineExceeded) && n > 0 && ctx.Err() == nil:
			return nil // the rest are silent
		case err != nil && ctx.Err() != nil && context.Cause(ctx) != nil && errors.Is(context.Cause(ctx), ErrInterrupted):
			return context.Cause(ctx)
		case err != nil:
			return c.failed(ctx, fmt.Errorf("servers of %s: %w", nc.where, err))
		}
		var r serverReply
		if err := json.Unmarshal(msg.Data, &r); err != nil {
			return failure(ExitFailed, "raft: an answer of a server does not decode: %w", err)
		}
		if r.Error != nil {
			return failure(ExitFailed, "raft: %s answers: %s", r.Server.Name, r.Error.Description)
		}
		more, err := reply(r)
		if err != nil {
			return failure(ExitFailed, "raft: the answer of %s does not decode: %w", r.Server.Name, err)
		}
		if !more {
			return nil
		}
	}
}

func (s raftSeen) name(id string) string { return cmp.Or(s.names[id], id) }

// group puts together what the servers say of one group.
func (s raftSeen) group(key [2]string, kind, stream string) raftGroup {
	g := raftGroup{Group: key[1], Kind: kind, Account: key[0], Stream: stream}
	said := s.groups[key]
	votes := map[string]int{}
	var leader *raftzGroup
	for _, name := range slices.Sorted(maps.Keys(said)) {
		z := said[name]
		g.Size, g.Quorum = max(g.Size, z.Size), max(g.Quorum, z.Quorum)
		if z.Leader != "" {
			votes[s.name(z.Leader)]++
		}
		// Of two who take themselves for the leader the older one does not know yet.
		if z.State == "LEADER" && (leader == nil || z.Term > leader.Term) {
			leader, g.Leader = &z, name
		}
	}
	if leader == nil {
		for _, name := range slices.Sorted(maps.Keys(votes)) {
			if g.Leader == "" || votes[name] > votes[g.Leader] {
				g.Leader = name
			}
		}
	}
	members := map[string]bool{}
	for name, z := range said {
		members[name] = true
		for id := range z.Peers {
			members[s.name(id)] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		row := raftServer{Server: name, Role: "silent", Peers: []raftPeer{}}
		if z, ok := said[name]; ok {
			row.Role, row.Term, row.Commit, row.Applied, row.Index = strings.ToLower(z.State), z.Term, z.Committed, z.Applied, z.Index
			if z.Observer && row.Role == "follower" {
				row.Role = "observer"
			}
			if z.Leader != "" {
				row.Leader = s.name(z.Leader)
			}
			for _, id := range slices.Sorted(maps.Keys(z.Peers)) {
				p := z.Peers[id]
				row.Peers = append(row.Peers, raftPeer{Server: s.name(id), Known: p.Known, Index: p.Index, LastContact: ms(p.LastSeen)})
			}
		}
		if leader != nil && name != g.Leader {
			for id, p := range leader.Peers {
				if s.name(id) == name {
					lag := leader.Index - min(p.Index, leader.Index)
					row.Lag, row.LastContact = &lag, ms(p.LastSeen)
				}
			}
		}
		g.Servers = append(g.Servers, row)
	}
	return g
}

// ms is a duration as NATS writes it, in milliseconds; nil if it is none.
func ms(s string) *int64 {
	d, err := time.ParseDuration(s)
	if err != nil {
		return nil
	}
	n := max(d, 0).Milliseconds()
	return &n
}

// hint says what an operator should know (R32): NATS counts every server that it ever knew, until it is told not to.
func (st *raftState) hint(machines []string) {
	if len(st.Groups) == 0 || st.Groups[0].Kind != "meta" {
		st.Hints = append(st.Hints, "no server has a meta group: is JetStream on?")
		return
	}
	meta := st.Groups[0]
	for _, s := range meta.Servers {
		if s.Role == "silent" {
			st.Silent = append(st.Silent, s.Server)
		}
		if machines != nil && !slices.Contains(machines, s.Server) {
			st.Hints = append(st.Hints, fmt.Sprintf("%s is no machine of the file, but counts for every majority until it is removed (JetStream peer-remove)", s.Server))
		}
	}
	for _, m := range machines {
		if !slices.ContainsFunc(meta.Servers, func(s raftServer) bool { return s.Server == m }) {
			st.Hints = append(st.Hints, fmt.Sprintf("%s has not been seen yet", m))
		}
	}
	if len(st.Silent) > 0 {
		st.Hints = append(st.Hints, fmt.Sprintf("no answer from %s", strings.Join(st.Silent, ", ")))
	}
	for _, g := range st.Groups {
		if g.Leader == "" {
			st.Hints = append(st.Hints, fmt.Sprintf("%s has no leader", g.title()))
		}
	}
}

func (g raftGroup) title() string {
	switch {
	case g.Kind == "meta":
		return "meta"
	case g.Account != "$G" && g.Stream != "KV_"+g.Account: // of a namespace's own account
		return g.Account + "/" + g.Stream
	}
	return g.Stream
}

// text is the state as a table of 80 columns, if the names allow it.
func (st *raftState) text(width int, p palette) string {
	t := newTable("GROUP", "SERVER", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "CONTACT")
	t.shrink, t.right = 0, []int{3, 4, 5, 6, 7}
	for _, g := range st.Groups {
		title := g.title()
		for _, s := range g.Servers {
			lag, contact := "", ""
			if s.Lag != nil {
				lag = fmt.Sprint(*s.Lag)
			}
			if s.LastContact != nil {
				contact = (time.Duration(*s.LastContact) * time.Millisecond).String()
			}
			if s.Role == "silent" {
				t.add(title, s.Server, s.Role, "", "", "", lag, contact)
			} else {
				t.add(title, s.Server, s.Role, fmt.Sprint(s.Term), fmt.Sprint(s.Commit), fmt.Sprint(s.Applied), lag, contact)
			}
		}
	}
	var b strings.Builder
	if len(t.rows) > 0 {
		b.WriteString(t.render(width))
	}
	for _, h := range st.Hints {
		b.WriteString(p.warn(oneLine(h)) + "\n")
	}
	return b.String()
}
