// Package killtheleader is a program's own test of what it does when its leader dies: see its test, which kills one in ten lines.
package killtheleader

import (
	"context"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/leader"
)

// Report is the program under test: of all its processes only the leader writes reports, each with its token, so that whoever stores them can
// refuse a late one of a former leader.
func Report(ctx context.Context, ns *quorate.Namespace, write func(token uint64)) error {
	e, err := leader.New(ns, "report", leader.Config{})
	if err != nil {
		return err
	}
	return e.Run(ctx, func(ctx context.Context, t *leader.Term) error {
		write(t.Token())
		<-ctx.Done()
		return nil
	})
}
