package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/vote"
)

const (
	benchLease = 6 * time.Second // what is measured does not depend on it, but for the longest that a write may take: a sixth
	benchMost  = 100000          // samples of one measurement
	benchRest  = 10 * time.Second
)

// spare is how many times the slowest write that was seen a renewal must have room for: what was seen in seconds is not the worst of months.
const spare = 2

func benchCommand() *command {
	return &command{
		name:    "bench",
		section: sectionOther,
		summary: "measure this NATS, and which lease it can carry",
		about: "Measures, one thing after the other and against the namespace's bucket: a compare-and-set write and an authoritative read; an election that nobody has (acquire); one that is handed over " +
			"to a candidate that waits (hand-over); a question to the leader of a group and its answer, which is what a heartbeat takes; a vote of two members.\n\n" +
			"A lease is renewed every sixth of it, and each of these renewals may take as long as that. So the slowest write says which leases this NATS can carry, with as much again to spare. " +
			"Members of other groups are not in the way, but use the same servers.\n\n" +
			"What it writes is under names of its own, and gone afterwards. A namespace that does not exist yet is made for the measurement, and removed.",
		flags: []flagSpec{
			{name: "for", kind: kindDuration, value: "D", def: "1s", usage: "how long each of the measurements takes"},
		},
		needs: needClient,
		json:  []shape{{of: benchReport{}}},
		examples: []example{
			{"quorate bench", "and whether the default lease fits"},
			{"quorate bench --for 20s --lease 500ms -j", "longer, for a short lease, as JSON"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: the lease does not fit"}},
		run:   runBench,
	}
}

// benchReport is what `bench -o json` shows.
type benchReport struct {
	Server     string      `json:"server" doc:"where it was measured"`
	Version    string      `json:"version" doc:"of the server"`
	Replicas   int         `json:"replicas" doc:"of the bucket"`
	Measured   []benchLine `json:"measured" doc:"the measurements"`
	LeaseMS    int64       `json:"lease_ms" doc:"what --lease says"`
	SmallestMS int64       `json:"smallest_lease_ms" doc:"that this NATS can carry"`
	Fits       bool        `json:"fits" doc:"the lease is no smaller"`
	Survives   bool        `json:"survives_stream_election" doc:"the lease rides out an election of the bucket's own leader"`
}

// benchLine is one measurement.
type benchLine struct {
	What  string `json:"what" doc:"write, read, acquire, hand-over, round trip or vote"`
	Count int    `json:"count" doc:"how many were measured"`
	P50US int64  `json:"p50_us" doc:"half took no longer"`
	P99US int64  `json:"p99_us" doc:"99 of 100 took no longer"`
	MaxUS int64  `json:"max_us" doc:"the slowest"`
}

// A bench is one run of it.
type bench struct {
	c      *call
	p      *progress
	lasts  time.Duration
	name   string // of the elections and the group
	report benchReport
	a, b   *session // two "processes"
}

func runBench(ctx context.Context, c *call) (err error) {
	b := &bench{c: c, lasts: c.duration("for"), name: "bench-" + strings.ToLower(nuid.Next())}
	if b.lasts <= 0 || b.lasts > time.Hour {
		return usageError("--for %s: from more than 0 to 1h", c.str("for"))
	}
	if err := c.checkLease(); err != nil {
		return err
	}
	c.quiet()
	b.p = c.startProgress("connecting", len(b.steps())*int(b.lasts/time.Millisecond))
	defer b.p.end()
	clean, err := b.open(ctx)
	if err == nil {
		err = b.measure(ctx)
	}
	if cerr := clean(); err == nil {
		err = cerr
	}
	if err != nil {
		var coded *exitError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &coded):
			return err
		}
		return c.failed(ctx, err)
	}
	b.judge()
	b.p.end()
	if c.g.json {
		err = c.printJSON(b.report)
	} else {
		err = c.print(b.text())
	}
	if err == nil && !b.report.Fits {
		return failure(ExitFailed, "bench: a lease of %s is too short for this NATS: give --lease %s at least", c.g.lease, wire.MS(b.report.SmallestMS))
	}
	return err
}

// open makes two connections, and the namespace for the time being if there is none.
func (b *bench) open(ctx context.Context) (clean func() error, err error) {
	c := b.c
	var closers []func() error
	clean = func() error {
		var first error
		for _, fn := range slices.Backward(closers) {
			if err := fn(); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
	lease := benchLease
	for _, s := range []**session{&b.a, &b.b} {
		nc, err := c.connect(ctx)
		if err != nil {
			return clean, err
		}
		closers = append(closers, nc.Close)
		st, ds, err := kv.Inspect(ctx, nc.Conn, kv.Options{Namespace: c.g.namespace, Domain: nc.jsDomain, Timeout: c.g.timeout, Logger: c.logger()})
		if errors.Is(err, kv.ErrBucketMissing) && s == &b.a {
			bucket, err := b.lend(ctx, nc)
			if err != nil {
				return clean, err
			}
			closers = append(closers, func() error { return b.takeBack(nc, bucket) })
			st, ds, err = kv.Inspect(ctx, nc.Conn, kv.Options{Namespace: c.g.namespace, Domain: nc.jsDomain, Timeout: c.g.timeout, Logger: c.logger()})
			if err != nil {
				return clean, err
			}
		} else if err != nil {
			return clean, err
		}
		if len(ds) > 0 {
			return clean, fmt.Errorf("bucket %s is not what it must be: see 'quorate init'", wire.Bucket(c.g.namespace))
		}
		c.g.lease, lease = lease, c.g.lease
		*s, err = c.sessionOn(ctx, nc, quorate.Timings{})
		c.g.lease, lease = lease, c.g.lease
		if err != nil {
			return clean, err
		}
		ns := (*s).ns
		closers = append(closers, func() error {
			bounded, cancel := context.WithTimeout(context.Background(), benchRest)
			defer cancel()
			return ns.Close(bounded)
		})
		b.report.Server, b.report.Version, b.report.Replicas = nc.where, nc.ConnectedServerVersion(), st.Replicas
	}
	return clean, nil
}

// lend makes the namespace's bucket.
func (b *bench) lend(ctx context.Context, nc *conn) (string, error) {
	bounded, cancel := b.c.bounded(ctx)
	defer cancel()
	return "KV_" + wire.Bucket(b.c.g.namespace), makeBucket(bounded, nc, kv.Options{Namespace: b.c.g.namespace, Domain: nc.jsDomain, Timeout: initAttempt, Logger: b.c.logger()})
}

// takeBack removes it, unless somebody has begun to use it.
func (b *bench) takeBack(nc *conn, stream string) error {
	ctx, cancel := context.WithTimeout(context.Background(), benchRest)
	defer cancel()
	ns, err := quorate.OpenWith(ctx, nc.Conn, quorate.Config{Namespace: b.c.g.namespace, JSDomain: nc.jsDomain, Logger: b.c.logger()}, inner.Options{AttachOnly: true})
	if err != nil {
		return err
	}
	defer ns.Close(ctx)
	for _, prefix := range []string{"member.>", "leader.>", "election.>"} {
		l, err := ns.Inner().Store.List(ctx, prefix)
		if err != nil {
			return err
		}
		for _, e := range l {
			if e.Op == kv.Record && !strings.Contains(e.Key, b.name) {
				b.c.note("bench: namespace %q is in use by now, and is left as it is", b.c.g.namespace)
				return nil
			}
		}
	}
	js, err := jetstream.New(nc.Conn)
	if nc.jsDomain != "" {
		js, err = jetstream.NewWithDomain(nc.Conn, nc.jsDomain)
	}
	if err != nil {
		return err
	}
	return js.DeleteStream(ctx, stream)
}

// A benchStep is one measurement: begin makes what it needs and returns what is done once.
type benchStep struct {
	what  string
	begin func(ctx context.Context) (once func(ctx context.Context) (time.Duration, error), end func() error, err error)
}

func (b *bench) steps() []benchStep {
	return []benchStep{{"write", b.write}, {"read", b.read}, {"acquire", b.acquire}, {"hand-over", b.handOver}, {"round trip", b.roundTrip}, {"vote", b.vote}}
}

func (b *bench) measure(ctx context.Context) error {
	for i, s := range b.steps() {
		b.p.step(s.what, i*int(b.lasts/time.Millisecond))
		once, end, err := s.begin(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		var took []time.Duration
		for began := time.Now(); len(took) == 0 || time.Since(began) < b.lasts && len(took) < benchMost; {
			var d time.Duration
			if d, err = once(ctx); err != nil {
				break
			}
			took = append(took, d)
			b.p.step(s.what, i*int(b.lasts/time.Millisecond)+int(time.Since(began)/time.Millisecond))
		}
		if eerr := end(); err == nil {
			err = eerr
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		slices.Sort(took)
		at := func(share float64) int64 {
			return took[min(int(share*float64(len(took))), len(took)-1)].Microseconds()
		}
		b.report.Measured = append(b.report.Measured, benchLine{s.what, len(took), at(0.5), at(0.99), at(1)})
	}
	return nil
}

func nothing() error { return nil }

type onceFunc = func(ctx context.Context) (time.Duration, error)

// write measures compare-and-set writes of one key, one after the other.
func (b *bench) write(ctx context.Context) (onceFunc, func() error, error) {
	const ttl = 10 * time.Second
	store, key := b.a.ns.Inner().Store, wire.CheckKey(b.name)
	var rev uint64
	w := func(ctx context.Context, purge bool) (time.Duration, error) {
		w := kv.Write{Key: key, Expected: rev, Value: []byte(`{"v":1,"nonce":"` + b.name + `"}`), TTL: ttl}
		if purge {
			w.Value, w.Purge, w.Nonce = nil, true, b.name
		}
		began := time.Now()
		r, out, err := store.Do(ctx, w)
		if out != kv.Yes && err == nil {
			err = errors.New("refused")
		}
		rev = r
		return time.Since(began), err
	}
	return func(ctx context.Context) (time.Duration, error) { return w(ctx, false) },
		func() error { _, err := w(context.WithoutCancel(ctx), true); return err }, nil
}

// read measures authoritative reads of a key.
func (b *bench) read(context.Context) (onceFunc, func() error, error) {
	store, key := b.a.ns.Inner().Store, wire.CheckKey(b.name)
	return func(ctx context.Context) (time.Duration, error) {
		began := time.Now()
		_, err := store.Read(ctx, key)
		return time.Since(began), err
	}, nothing, nil
}

// acquire measures elections that nobody has campaigned for before.
func (b *bench) acquire(context.Context) (onceFunc, func() error, error) {
	n := 0
	return func(ctx context.Context) (time.Duration, error) {
		n++
		e, err := leader.New(b.a.ns, b.name+"-"+strconv.Itoa(n), leader.Config{ID: "a"})
		if err != nil {
			return 0, err
		}
		defer e.Close(ctx)
		began := time.Now()
		t, err := e.TryCampaign(ctx)
		took := time.Since(began)
		if err != nil {
			return 0, err
		}
		return took, t.Resign(ctx)
	}, nothing, nil
}

// handOver measures how long nobody leads when a leader resigns and another waits: from asking to resign until the other leads.
func (b *bench) handOver(ctx context.Context) (onceFunc, func() error, error) {
	var all [2]*leader.Elector
	for i, s := range []*session{b.a, b.b} {
		e, err := leader.New(s.ns, b.name, leader.Config{ID: string(rune('a' + i))})
		if err != nil {
			return nil, nothing, err
		}
		all[i] = e
	}
	held, err := all[0].Campaign(ctx)
	end := func() error {
		ctx := context.WithoutCancel(ctx)
		return errors.Join(all[0].Close(ctx), all[1].Close(ctx))
	}
	if err != nil {
		return nil, end, err
	}
	next := 1
	return func(ctx context.Context) (time.Duration, error) {
		type won struct {
			t   *leader.Term
			at  time.Time
			err error
		}
		got := make(chan won, 1)
		e := all[next]
		go func() {
			t, err := e.Campaign(ctx)
			got <- won{t, time.Now(), err}
		}()
		// The candidate has told the holder that it waits by then.
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
		began := time.Now()
		if err := held.Resign(ctx); err != nil {
			return 0, err
		}
		w := <-got
		if w.err != nil {
			return 0, w.err
		}
		held, next = w.t, 1-next
		return w.at.Sub(began), nil
	}, end, nil
}

// members makes a group of two.
func (b *bench) members(ctx context.Context) (asks *coord.Group, end func() error, err error) {
	var all [2]*coord.Group
	end = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchRest)
		defer cancel()
		for _, g := range slices.Backward(all[:]) {
			if g != nil {
				_ = g.Leave(ctx) // the last one has nobody to tell
			}
		}
		return nil
	}
	for i, s := range []*session{b.a, b.b} {
		g, err := coord.Join(ctx, s.ns, b.name, coord.Config{ID: string(rune('a' + i)), NoLead: i > 0})
		if err != nil {
			return nil, end, err
		}
		all[i] = g
		if _, err := vote.Join(ctx, g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() }}); err != nil {
			return nil, end, err
		}
	}
	if _, err := all[0].Handle(wire.DefaultTopic, func(context.Context, coord.Message) ([]byte, error) { return nil, nil }); err != nil {
		return nil, end, err
	}
	return all[1], end, nil
}

// roundTrip measures what a heartbeat takes: a request to the leader, over two connections, and its answer.
func (b *bench) roundTrip(ctx context.Context) (onceFunc, func() error, error) {
	g, end, err := b.members(ctx)
	return func(ctx context.Context) (time.Duration, error) {
		began := time.Now()
		_, err := g.Ask(ctx, coord.ToLeader, wire.DefaultTopic, nil)
		return time.Since(began), err
	}, end, err
}

// vote measures from the question to the sealed verdict of two members.
func (b *bench) vote(ctx context.Context) (onceFunc, func() error, error) {
	g, end, err := b.members(ctx)
	return func(ctx context.Context) (time.Duration, error) {
		ctx, cancel := b.c.bounded(ctx)
		defer cancel()
		began := time.Now()
		v, err := vote.Propose(ctx, g.Client, vote.Proposal{Topic: "bench", Kind: vote.Consensus})
		if err == nil && v.Of < 2 { // its own role is not known to the leader yet
			return b.vote2(ctx, g)
		}
		return time.Since(began), err
	}, end, err
}

// vote2 asks until both have a vote.
func (b *bench) vote2(ctx context.Context, g *coord.Group) (time.Duration, error) {
	for {
		began := time.Now()
		v, err := vote.Propose(ctx, g.Client, vote.Proposal{Topic: "bench", Kind: vote.Consensus})
		if err != nil || v.Of == 2 {
			return time.Since(began), err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// judge says what lease the measured can carry.
func (b *bench) judge() {
	r := &b.report
	worst := time.Duration(r.Measured[0].MaxUS) * time.Microsecond
	for _, l := range r.Measured {
		if l.What == "read" {
			worst = max(worst, time.Duration(l.MaxUS)*time.Microsecond)
		}
	}
	lease := max(6*spare*worst, quorate.MinLease)
	lease = (lease + 100*time.Millisecond - 1).Truncate(100 * time.Millisecond)
	r.SmallestMS, r.LeaseMS = wire.ToMS(lease), wire.ToMS(b.c.g.lease)
	r.Fits = b.c.g.lease >= lease
	if e, err := quorate.Explain(quorate.Timings{Lease: b.c.g.lease}, quorate.Situation{Members: 3}); err == nil {
		r.Survives = e.SurvivesElection
	}
}

func (b *bench) text() string {
	r := b.report
	t := newTable("", "HALF", "99%", "SLOWEST", "COUNT")
	t.right = []int{1, 2, 3, 4}
	us := func(n int64) string { return shortly(time.Duration(n) * time.Microsecond) }
	for _, l := range r.Measured {
		t.add(l.What, us(l.P50US), us(l.P99US), us(l.MaxUS), strconv.Itoa(l.Count))
	}
	var s strings.Builder
	paragraph(&s, "", fmt.Sprintf("NATS %s, %s; a bucket of %s", r.Version, r.Server, count(r.Replicas, "replica")))
	s.WriteString("\n" + t.render(b.c.width()) + "\n")
	lease, slowest, worst := b.c.g.lease, wire.MS(r.SmallestMS), max(r.Measured[0].MaxUS, r.Measured[1].MaxUS)
	p := b.c.colours(b.c.stdout)
	verdict := p.good("fits")
	if !r.Fits {
		verdict = p.bad("does not fit")
	}
	fmt.Fprintf(&s, "A lease of %s %s: each renewal has %s, the slowest took %s.\n", lease, verdict, lease/6, us(worst))
	paragraph(&s, "", fmt.Sprintf("The smallest lease for this NATS is %s, with as much time to spare as was measured.", slowest))
	switch {
	case r.Replicas < 2:
		paragraph(&s, "", "The bucket has one replica: while its server is away nobody can renew, and leases run out.")
	case r.Survives:
		paragraph(&s, "", "The lease rides out an election of the bucket's own leader, which takes 4 to 9 s.")
	default:
		paragraph(&s, "", "An election of the bucket's own leader takes 4 to 9 s: with this lease leaders change then, safely. One of 15 s rides it out.")
	}
	return s.String()
}
