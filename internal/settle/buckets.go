package settle

import (
	"fmt"
	"slices"

	"github.com/quorate/quorate/internal/wire"
)

// Buckets (S16). The `settling` record names the buckets that move. Who holds others goes on with those: once it has acknowledged the new number
// it has let go of the ones that move, and is granted the rest under that number while the generation is being settled, and in the
// `settled` record they are its own. So a bucket that keeps its owner is never let go of, and never anybody else's.

// MaxWeight is the highest weight of a member; a higher one counts as this.
const MaxWeight = 1 << 20

// A desire is what a generation should be like.
type desire struct {
	workers []worker
	buckets int
	mapped  string
}

func (d desire) equal(o desire) bool {
	return d.buckets == o.buckets && d.mapped == o.mapped && slices.EqualFunc(d.workers, o.workers, func(a, b worker) bool {
		return a.Place == b.Place && (d.buckets == 0 || a.Taker == b.Taker) // without buckets weights and zones mean nothing
	})
}

// desires is what the next generation should be like.
func (m *Machine) desires(w []worker) desire {
	d := desire{workers: w}
	d.buckets, d.mapped = m.want()
	return d
}

// want is how the work is to be cut. Who says nothing about it goes on as the record has it: a leader that does not work itself should not
// have everybody let go of everything.
func (m *Machine) want() (buckets int, mapped string) {
	switch {
	case m.cfg.Buckets > 0:
		return m.cfg.Buckets, m.cfg.Map
	case m.cfg.Buckets < 0:
		return 0, wire.MapJump
	}
	return m.rec.Buckets, m.rec.Map
}

// takes is what a member takes of buckets.
func (mb *member) takes() Taker {
	return Taker{Weight: max(1, min(mb.taker.Weight, MaxWeight)), Zone: mb.taker.Zone}
}

// holdings notes who has which buckets by the present record, and keeps which while settling.
func (m *Machine) holdings() {
	m.shares, m.keeps, m.goesOn = map[wire.Place][]int{}, map[wire.Place][]int{}, nil
	moving := make([]bool, m.rec.Buckets)
	for _, b := range m.rec.Moving {
		moving[b] = true
	}
	for b, o := range m.rec.Owners {
		if o < 0 {
			continue
		}
		p := m.rec.Places[o]
		m.shares[p] = append(m.shares[p], b)
		if m.rec.Phase == wire.Settling && !moving[b] {
			m.keeps[p] = append(m.keeps[p], b)
		}
	}
}

// tellBuckets puts the buckets that are granted into a reply. A member that has them already, as its heartbeat says, is spared the list: a
// generation's are the same to its end.
func (m *Machine) tellBuckets(rep *wire.Reply, buckets []int, known bool) {
	rep.Of, rep.Count = m.rec.Buckets, len(buckets)
	if known || len(buckets) == 0 {
		return
	}
	rep.Buckets, rep.Tokens = buckets, make([]uint64, len(buckets))
	for i, b := range buckets {
		rep.Tokens[i] = m.rec.Tokens[b]
	}
}

// content says that the present record is as it should be.
func (m *Machine) content(d desire) bool {
	if len(d.workers) != len(m.rec.Places) {
		return false
	}
	for _, w := range d.workers {
		if _, ok := m.index[w.Place]; !ok {
			return false
		}
	}
	if len(d.workers) == 0 {
		return true // nobody to share anything
	}
	if d.buckets != m.rec.Buckets || d.mapped != m.rec.Map {
		return false
	}
	return d.buckets == 0 || slices.Equal(m.spread(d, m.rec.Places, nil), m.rec.Owners)
}

// spread is who should have which bucket, as indexes of the given places. A restarted member takes the buckets of its incarnation before.
func (m *Machine) spread(d desire, places []wire.Place, fixed []bool) []int {
	takers, at := make([]Taker, len(places)), make(map[string]int, len(places))
	for i, p := range places {
		at[p.ID] = i
	}
	for _, w := range d.workers {
		takers[at[w.ID]] = w.Taker
	}
	now := make([]int, d.buckets)
	for b := range now {
		now[b] = -1
		if m.rec.Buckets != d.buckets || m.rec.Map != d.mapped || m.rec.Owners[b] < 0 {
			continue // another cut of the work has nothing in common with this one
		}
		if i, ok := at[m.rec.Places[m.rec.Owners[b]].ID]; ok {
			now[b] = i
		}
	}
	return Spread(now, takers, fixed, m.rec.Tokens)
}

// moving are the buckets that are to be let go of for what is desired.
func (m *Machine) moving(d desire) (moving []int) {
	var to []int
	places := Sticky(m.rec.Places, placesOf(d.workers))
	if d.buckets == m.rec.Buckets && d.mapped == m.rec.Map {
		to = m.spread(d, places, nil)
	}
	for b, o := range m.rec.Owners {
		if o >= 0 && (to == nil || to[b] < 0 || places[to[b]] != m.rec.Places[o]) {
			moving = append(moving, b)
		}
	}
	return moving
}

// divide gives the places and buckets of the new generation: everyone has let go of what it does not keep.
func (m *Machine) divide(n *wire.Settled) {
	d := m.desires(m.workers())
	if len(m.keeps) > 0 {
		d.buckets, d.mapped = m.rec.Buckets, m.rec.Map // what is kept is kept in this cut; a new one comes with the next generation
	}
	m.goesOn = map[wire.Place]bool{}
	in := map[string]bool{}
	for _, w := range d.workers {
		in[w.ID] = true
	}
	places := placesOf(d.workers)
	for _, p := range m.rec.Places {
		if h := m.holders[p.ID]; len(m.keeps[p]) > 0 && m.now.Mono < h.assigned {
			m.goesOn[p] = true // S16: it goes on with what it keeps, also if it does not work any more: until the next generation
			if !in[p.ID] {
				places = append(places, p)
			}
		}
	}
	n.Places = Sticky(m.rec.Places, places)
	n.Buckets, n.Map, n.Moving, n.Owners, n.Tokens = d.buckets, d.mapped, nil, nil, nil
	if d.buckets == 0 {
		return
	}
	fixed := make([]bool, d.buckets)
	for p := range m.goesOn {
		for _, b := range m.keeps[p] {
			fixed[b] = true
		}
	}
	n.Owners, n.Tokens = m.spread(d, n.Places, fixed), make([]uint64, d.buckets)
	same := d.buckets == m.rec.Buckets && d.mapped == m.rec.Map
	for b, o := range n.Owners {
		switch {
		case o < 0:
		case same && m.rec.Owners[b] >= 0 && m.rec.Places[m.rec.Owners[b]] == n.Places[o]:
			n.Tokens[b] = m.rec.Tokens[b]
		default:
			n.Tokens[b] = n.Generation
		}
	}
}

func placesOf(w []worker) []wire.Place {
	l := make([]wire.Place, len(w))
	for i := range w {
		l[i] = w[i].Place
	}
	return l
}

// change says how what is desired differs from the present record.
func (m *Machine) change(d desire) string {
	now := map[wire.Place]bool{}
	for _, w := range d.workers {
		now[w.Place] = true
		if _, ok := m.index[w.Place]; !ok {
			return "joined " + w.ID
		}
	}
	for _, p := range m.rec.Places {
		if !now[p] {
			return "left " + p.ID
		}
	}
	switch {
	case d.buckets != m.rec.Buckets && d.buckets == 0:
		return "no buckets"
	case d.buckets != m.rec.Buckets:
		return fmt.Sprintf("buckets %d", d.buckets)
	case d.mapped != m.rec.Map:
		return "map " + d.mapped
	}
	return "spread"
}
