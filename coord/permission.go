package coord

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/internal/wire"
)

// admitted waits until the membership is granted for the first time. A missing permission would only show as silence: the server tells of it beside
// what was sent, and the error handler of the connection belongs to its user. What is left is the connection's last error, which names the subject; before
// is what it was when the join began.
func (g *Group) admitted(ctx context.Context, before error) error {
	// Any of them: of several the last one is all that there is to see.
	keys := func(of func(namespace, key string) string) []string {
		return []string{of(g.in.Name, wire.LeaderKey(g.group)) + `"`, of(g.in.Name, wire.SettledKey(g.group)) + `"`, of(g.in.Name, wire.MemberPrefix(g.group))}
	}
	subjects := append(append(keys(wire.KVSubject), keys(wire.KVHint)...), wire.GroupSubject(g.in.Name, g.group, ""))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	missing := func() error {
		err := g.nc.LastError()
		if err == nil || errors.Is(err, before) || !errors.Is(err, nats.ErrPermissionViolation) {
			return nil
		}
		if !slices.ContainsFunc(subjects, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			return nil
		}
		return fmt.Errorf("%w: %s", quorate.ErrPermission, strings.TrimPrefix(err.Error(), "nats: permissions violation: "))
	}
	for {
		select {
		case <-g.joined:
			return missing() // what the server has to say of subscriptions comes before the answers to what was sent after them
		case <-g.ctx.Done():
			return context.Cause(g.ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if err := missing(); err != nil {
				return err
			}
		}
	}
}
