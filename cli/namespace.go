package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/inner"
	"github.com/quorate/quorate/internal/wire"
)

// A session is a command's connection and namespace.
type session struct {
	c  *call
	nc *conn
	ns *quorate.Namespace
}

// session connects and attaches to the namespace's bucket, within --timeout. Only commands that take part make the bucket
// when there is none: a client that did would leave a bucket behind for every namespace misspelt.
func (c *call) session(ctx context.Context, extra ...nats.Option) (*session, error) {
	return c.sessionWith(ctx, quorate.Timings{}, extra...)
}

// sessionWith is session with timings of the command's own beside the lease.
func (c *call) sessionWith(ctx context.Context, timings quorate.Timings, extra ...nats.Option) (*session, error) {
	if err := c.checkLease(); err != nil {
		return nil, err
	}
	nc, err := c.connect(ctx, extra...)
	if err != nil {
		return nil, err
	}
	s, err := c.sessionOn(ctx, nc, timings)
	if err != nil {
		nc.Close()
	}
	return s, err
}

// checkLease says what is wrong with --lease.
func (c *call) checkLease() error {
	if err := quorate.CheckLease(c.g.lease); err != nil {
		_, from := c.setting("lease")
		return usageError("%s: %w", c.spelled("lease", from), err)
	}
	return nil
}

// sessionOn attaches to the namespace's bucket over a connection, which stays open if that fails.
func (c *call) sessionOn(ctx context.Context, nc *conn, timings quorate.Timings) (*session, error) {
	first, cancel := c.bounded(ctx)
	defer cancel()
	ns, err := quorate.OpenWith(first, nc.Conn, quorate.Config{
		Namespace: c.g.namespace, JSDomain: nc.jsDomain, Lease: c.g.lease, Timings: timings, Logger: c.logger(), Hooks: c.mon.hooks(),
	}, inner.Options{AttachOnly: c.cmd.needs != needServer, Patient: c.cmd.needs == needClient && !c.cmd.runsOn})
	if err != nil {
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return nil, failure(ExitUnanswered, "%s: no answer from %s within %s", c.cmd.name, nc.where, c.g.timeout)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, quorate.ErrBucketMissing):
			return nil, &exitError{code: ExitFailed, err: err, text: fmt.Sprintf("%s: namespace %q does not exist on %s: "+
				"'quorate join GROUP' would make it; is it another --namespace or --server?", c.cmd.name, c.g.namespace, nc.where)}
		}
		return nil, c.failed(first, err)
	}
	return &session{c, nc, ns}, nil
}

// looking attaches to the namespace once it exists, for commands that look at what others make: a namespace misspelt must not
// come to be by it. It says once what it waits for.
func (c *call) looking(ctx context.Context, nc *conn) (*quorate.Namespace, error) {
	for told := false; ; told = true {
		ns, err := c.lookAt(ctx, nc)
		if !errors.Is(err, quorate.ErrBucketMissing) {
			return ns, err
		}
		if !told {
			c.note("%s: namespace %q does not exist yet: waiting until somebody joins a group in it", c.cmd.name, c.g.namespace)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// Close ends the session: what it has opened first (see [quorate.Namespace.Close]), then the connection.
func (s *session) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeMost)
	defer cancel()
	err := s.ns.Close(ctx)
	if cerr := s.nc.Close(); err == nil {
		err = cerr
	}
	return err
}

// end closes the session of a command that ends with err. Who is interrupted has left, and said so if nobody has answered: that is no failure.
func (s *session) end(ctx context.Context, err error) error {
	cerr := s.Close()
	if err == nil && cerr != nil && ctx.Err() == nil {
		return s.c.failed(ctx, cerr)
	}
	return err
}

// failed is the one line for what a package of ours returned: with the command before it, and without the names of packages.
func (c *call) failed(ctx context.Context, err error) error {
	code := ExitFailed
	var name *wire.NameError
	switch {
	case errors.As(err, &name):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		code = ExitUnanswered
	case errors.Is(err, coord.ErrNoLeader), errors.Is(err, quorate.ErrNotQuorate):
		code = ExitUnanswered
	}
	text := err.Error()
	for _, pkg := range []string{"quorate: ", "coord: ", "leader: ", "partition: ", "vote: ", "kv: ", "nats: "} {
		text = strings.TrimPrefix(text, pkg)
		text = strings.ReplaceAll(text, ": "+pkg, ": ")
	}
	text = strings.TrimPrefix(text, c.cmd.name+" in ") // "step-down in group", said by the command's name already
	if code == ExitUnanswered && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		text = strings.TrimSuffix(text, ": "+context.DeadlineExceeded.Error())
		text += fmt.Sprintf(": no answer within %s", c.g.timeout)
	}
	return &exitError{code: code, text: c.cmd.name + ": " + text, err: err}
}

// client opens a client of the group that the first argument names.
func (s *session) client(ctx context.Context) (*coord.Client, error) {
	cl, err := coord.Open(ctx, s.ns, s.c.arg(0))
	if err != nil {
		return nil, s.c.failed(ctx, err)
	}
	return cl, nil
}

// noGroup is the error for a group of which nothing is there.
func (c *call) noGroup(group string) error {
	return &exitError{code: ExitFailed, err: coord.ErrNoGroup,
		text: fmt.Sprintf("%s: no such group %q: 'quorate groups' lists them", c.cmd.name, group)}
}

// inGroup is a one-shot command of a client on the group that the first argument names: within --timeout it looks the group up
// and calls fn with what its leader, or else its records, say. A group of which nothing is there is an error.
func (c *call) inGroup(ctx context.Context, fn func(ctx context.Context, cl *coord.Client, r coord.Roster) error) error {
	group := c.arg(0)
	if err := wire.CheckGroup(group); err != nil {
		return err
	}
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	s, err := c.session(bounded)
	if errors.Is(err, quorate.ErrBucketMissing) {
		return &exitError{code: ExitFailed, err: err, text: fmt.Sprintf("%s: no such group %q: %s",
			c.cmd.name, group, strings.TrimPrefix(err.Error(), c.cmd.name+": "))}
	} else if err != nil {
		return err
	}
	defer s.Close()
	cl, err := s.client(bounded)
	if err != nil {
		return err
	}
	r, err := cl.Roster(bounded)
	if err != nil {
		return c.failed(bounded, err)
	}
	if r.Leader == "" && len(r.Members) == 0 {
		l, err := cl.Leader(bounded)
		if err != nil {
			return c.failed(bounded, err)
		}
		if l.Holder == "" {
			return c.noGroup(group)
		}
	}
	return fn(bounded, cl, r)
}

// wireTime is a time as JSON carries it, null when it is not known.
func wireTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := wire.Time(t)
	return &s
}
