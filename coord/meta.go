package coord

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/quorate/quorate/internal/wire"
)

// Roles of a member. An observer has none.
const (
	RoleLead = wire.RoleLead // campaigns for the leadership
	RoleWork = wire.RoleWork // has a share of the work (package partition)
	RoleVote = wire.RoleVote // votes (package vote)
)

// A Filter selects members. The zero value selects all; what is set must all hold.
type Filter struct {
	Role   string            // they have this role
	Status string            // alive, late or unknown; the members of a [View] are all unknown
	Meta   map[string]string // they have each of these keys, with this value
}

// Match reports whether a member is selected.
func (f Filter) Match(m Member) bool {
	if f.Role != "" && !slices.Contains(m.Roles, f.Role) || f.Status != "" && m.Status != f.Status {
		return false
	}
	for k, v := range f.Meta {
		if has, ok := m.Meta[k]; !ok || has != v {
			return false
		}
	}
	return true
}

// Select returns the members that match, in their order: of [Client.Members] or of a [View].
func (f Filter) Select(ms []Member) []Member {
	out := []Member{}
	for _, m := range ms {
		if f.Match(m) {
			out = append(out, m)
		}
	}
	return out
}

// checkMeta says what is wrong with a member's metadata.
func checkMeta(meta map[string]string) error {
	size := 0
	for k, v := range meta {
		switch size += len(k) + len(v); {
		case k == "":
			return errors.New("metadata with an empty key")
		case !utf8.ValidString(k) || !utf8.ValidString(v):
			return fmt.Errorf("metadata %.60q is not UTF-8: encode it", k)
		}
	}
	if size > wire.MaxMeta {
		return fmt.Errorf("metadata of %d bytes, keys and values together; at most %d are allowed", size, wire.MaxMeta)
	}
	return nil
}

// metaInput changes what the member says about itself.
type metaInput struct {
	meta   map[string]string
	stored chan struct{} // closed when a record with it, or with a later one, stands
}

// SetMeta replaces what others can read about this member (Config.Meta), while it is one: up to 4 KiB, keys and values together. It is written
// into the member's record by compare-and-set; from there everybody's [Client.Watch] yields it, and the leader tells it to who asks
// ([Client.Members]). A restart or a new incarnation of this process in the same Group keeps it; who joins anew begins with its Config's.
//
// Nil says that the record stands. When ctx ends first that is not known yet: the member goes on writing until it stands, or until another
// SetMeta replaces it. When the membership ends first, the error is its cause, and nothing stands any more.
func (g *Group) SetMeta(ctx context.Context, meta map[string]string) error {
	fail := func(err error) error {
		return fmt.Errorf("coord: set metadata of %q in group %q: %w", g.cfg.ID, g.group, err)
	}
	if err := checkMeta(meta); err != nil {
		return fail(err)
	}
	if g.cfg.MessagingOnly {
		return fail(errMessagingOnly)
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	in := metaInput{maps.Clone(meta), make(chan struct{})}
	g.m.box.Put(in)
	select {
	case <-in.stored:
		return nil
	case <-g.ctx.Done():
		return fail(context.Cause(g.ctx))
	case <-ctx.Done():
		return fail(fmt.Errorf("not confirmed yet, and still being written: %w", context.Cause(ctx)))
	}
}

// metadata is what a member says about itself. It belongs to the member's loop.
type metadata struct {
	now   map[string]string
	ver   uint64 // counts the changes
	waits []metaWait
}

// metaWait is one who waits for a version of the metadata to stand.
type metaWait struct {
	ver    uint64
	stored chan struct{}
}

func (m *metadata) set(in metaInput) {
	m.now = in.meta
	m.ver++
	m.waits = append(m.waits, metaWait{m.ver, in.stored})
}

// stands notes that a record with that version stands.
func (m *metadata) stands(ver uint64) {
	m.waits = slices.DeleteFunc(m.waits, func(w metaWait) bool {
		if w.ver > ver {
			return false
		}
		close(w.stored)
		return true
	})
}
