package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate"
)

// Metrics counts what the namespaces do whose hooks it is. It is a [prometheus.Collector]: register it. Make it with [New].
type Metrics struct {
	now func() time.Time

	mu     sync.Mutex
	things map[thing]*state
	conns  map[string]bool // by namespace: connected

	vectors map[string]prometheus.Collector // counters and histograms by name
}

// thing is what a series is about.
type thing struct{ namespace, group, election string }

// state is what is known of a thing.
type state struct {
	members    map[string]*member
	term       uint64
	since      time.Time // when this process got to know of that term; zero: nobody leads
	generation uint64
	settled    bool // a generation is known
	led        bool // a member of this process leads or has led: it has a roster
	size, late int
	unsettled  time.Duration // in all, of members that are settled now or gone
}

// member is one of this process.
type member struct {
	leads, live, wants bool
	share              bool
	buckets            int
	until              time.Time // its membership is granted; zero: as long as it lives
	since              time.Time // it wants a share, and has had none since; zero: not so
}

// New makes metrics that have seen nothing yet.
func New() *Metrics {
	m := &Metrics{now: time.Now, things: map[thing]*state{}, conns: map[string]bool{}, vectors: map[string]prometheus.Collector{}}
	for _, f := range families {
		switch f.kind {
		case counterVec:
			m.vectors[f.name] = prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.name, Help: f.help}, f.labels)
		case histogramVec:
			m.vectors[f.name] = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: f.name, Help: f.help, Buckets: durations}, f.labels)
		}
	}
	return m
}

// durations are from a quarter of a millisecond to 16 s.
var durations = prometheus.ExponentialBuckets(0.00025, 2, 17)

// Hooks are for [quorate.Config].
func (m *Metrics) Hooks() quorate.Hooks { return quorate.Hooks{Event: m.event} }

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for i := range families {
		ch <- families[i].desc
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, v := range m.vectors {
		v.Collect(ch)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	put := func(name string, value float64, labels ...string) {
		f := byName[name]
		kind := prometheus.GaugeValue
		if f.kind == counter {
			kind = prometheus.CounterValue
		}
		ch <- prometheus.MustNewConstMetric(f.desc, kind, value, labels...)
	}
	for ns, connected := range m.conns {
		put(nameConnected, number(connected), ns)
	}
	for t, s := range m.things {
		leads, live, shares, buckets, wants, longest, unsettled := 0, 0, 0, 0, false, time.Duration(0), s.unsettled
		for _, p := range s.members {
			leads += int(number(p.leads))
			live += int(number(p.live && (p.until.IsZero() || now.Before(p.until))))
			shares += int(number(p.share))
			buckets += p.buckets
			wants = wants || p.wants
			if !p.since.IsZero() {
				longest = max(longest, now.Sub(p.since))
				unsettled += now.Sub(p.since)
			}
		}
		put(nameLeader, float64(leads), t.namespace, t.group, t.election)
		if s.term != 0 {
			put(nameTerm, float64(s.term), t.namespace, t.group, t.election)
		}
		if !s.since.IsZero() {
			put(nameTermAge, now.Sub(s.since).Seconds(), t.namespace, t.group, t.election)
		}
		if t.election != "" {
			continue
		}
		put(nameMember, float64(live), t.namespace, t.group)
		if s.led && leads > 0 {
			put(nameRosterSize, float64(s.size), t.namespace, t.group)
			put(nameRosterLate, float64(s.late), t.namespace, t.group)
		}
		if s.settled {
			put(nameGeneration, float64(s.generation), t.namespace, t.group)
		}
		if wants || unsettled > 0 {
			put(nameShares, float64(shares), t.namespace, t.group)
			put(nameBuckets, float64(buckets), t.namespace, t.group)
			put(nameUnsettledAge, longest.Seconds(), t.namespace, t.group)
			put(nameUnsettled, unsettled.Seconds(), t.namespace, t.group)
		}
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *Metrics) count(name string, n float64, labels ...string) {
	m.vectors[name].(*prometheus.CounterVec).WithLabelValues(labels...).Add(n)
}

func (m *Metrics) observe(name string, d time.Duration, labels ...string) {
	m.vectors[name].(*prometheus.HistogramVec).WithLabelValues(labels...).Observe(max(d, 0).Seconds())
}

// event counts one.
func (m *Metrics) event(e quorate.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ns, g, el := e.Namespace, e.Group, e.Election
	if _, known := m.conns[ns]; !known && ns != "" {
		m.conns[ns] = true
		m.count(nameReconnects, 0, ns) // from the first: a rate needs two points
		m.count(nameDisconnects, 0, ns)
	}
	switch e.Kind {
	case quorate.EventDropped:
		m.count(nameEventsDropped, float64(e.Count), ns)
		return
	case quorate.EventDisconnected:
		m.conns[ns] = false
		m.count(nameDisconnects, 1, ns)
		return
	case quorate.EventReconnected:
		m.conns[ns] = true
		m.count(nameReconnects, 1, ns)
		return
	case quorate.EventProposal: // by a client, perhaps: it tells nothing of a member
		m.count(nameProposals, 1, ns, g, e.Answer)
		m.observe(nameProposalTime, e.Took, ns, g)
		return
	}
	t := thing{ns, g, el}
	s := m.things[t]
	if s == nil {
		s = &state{members: map[string]*member{}}
		m.things[t] = s
		m.count(nameFailovers, 0, ns, g, el)
	}
	p := s.members[e.Member]
	if p == nil {
		p = &member{}
		s.members[e.Member] = p
	}
	switch e.Kind {
	case quorate.EventTermBegan:
		m.count(nameTerms, 1, ns, g, el, e.Reason)
		if e.Reason == "expired" {
			m.count(nameFailovers, 1, ns, g, el)
		}
		p.leads = e.Quorate
		s.sees(e.Term, e.Time)
	case quorate.EventTermEnded:
		m.count(nameTermsEnded, 1, ns, g, el, e.Reason)
		p.leads = false
		s.led, s.size, s.late = false, 0, 0
		if e.Term == s.term {
			s.since = time.Time{}
		}
	case quorate.EventLeader:
		if e.Leader == "" {
			s.since = time.Time{}
		} else {
			s.sees(e.Term, e.Time)
		}
	case quorate.EventRenewal:
		m.count(nameRenewals, 1, ns, g, el, e.Answer)
		m.observe(nameRenewalTime, e.Took, ns)
	case quorate.EventMemberBegan:
		m.count(nameMemberships, 1, ns, g)
		p.live = true
		p.holds(e)
	case quorate.EventMemberEnded:
		m.count(nameMembershipsEnded, 1, ns, g, e.Reason)
		p.live, p.until = false, time.Time{}
	case quorate.EventHeartbeat:
		m.observe(nameHeartbeatTime, e.Took, ns)
		p.holds(e)
		if e.Term > s.term {
			s.sees(e.Term, e.Time)
		}
	case quorate.EventRoster:
		s.led, s.size, s.late = true, e.Count, e.Late
		m.count(nameHeartbeatsLate, 0, ns, g)
	case quorate.EventMemberLate:
		m.count(nameHeartbeatsLate, 1, ns, g)
	case quorate.EventSettled:
		m.count(nameGenerations, 1, ns, g, e.Reason)
		m.observe(nameSettlingTime, e.Took, ns, g)
		s.generation, s.settled = max(s.generation, e.Generation), true
	case quorate.EventShareWanted:
		p.wants = e.Count > 0
		s.counts(p, e.Time)
	case quorate.EventShareBegan:
		p.share = true
		s.generation, s.settled = max(s.generation, e.Generation), true
		s.counts(p, e.Time)
	case quorate.EventShareEnded:
		p.share = false
		s.counts(p, e.Time)
	case quorate.EventBuckets:
		p.buckets = e.Count
	case quorate.EventRound:
		m.count(nameBallots, 1, ns, g)
	case quorate.EventVerdict:
		m.count(nameVerdicts, 1, ns, g, e.Answer)
		m.observe(nameVerdictTime, e.Took, ns, g)
	case quorate.EventVote:
		m.count(nameVotes, 1, ns, g, e.Answer)
	case quorate.EventAction:
		m.count(nameActions, 1, ns, g, e.Answer)
	case quorate.EventMessageDropped:
		m.count(nameMessagesDropped, 1, ns, g)
	}
	if *p == (member{}) { // of a gateway thousands come and go
		delete(s.members, e.Member)
	}
}

// holds notes for how long the membership is granted.
func (p *member) holds(e quorate.Event) {
	if p.live && e.Holds > 0 {
		p.until = e.Time.Add(e.Holds)
	}
}

// sees notes a term; its age counts from here.
func (s *state) sees(term uint64, at time.Time) {
	if term != s.term || s.since.IsZero() {
		s.term, s.since = term, at
	}
}

// counts begins or ends the time for which a member is without the share that it wants.
func (s *state) counts(p *member, at time.Time) {
	switch without := p.wants && !p.share; {
	case without && p.since.IsZero():
		p.since = at
	case !without && !p.since.IsZero():
		s.unsettled += max(at.Sub(p.since), 0)
		p.since = time.Time{}
	}
}
