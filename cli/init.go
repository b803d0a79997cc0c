package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/internal/wire"
)

func initCommand() *command {
	return &command{
		name:    "init",
		section: sectionServe,
		summary: "make the namespace's bucket, or say how it differs",
		about: "Makes the bucket of the namespace if there is none, with three replicas if the servers have places for them. Nobody needs that: the first member " +
			"makes it too. One that is there is compared with what it must be, field by field, and left as it is.\n\n" +
			"--repair makes it what it must be, adds replicas up to three where there are servers for them, and waits until these have caught up. Members " +
			"may go on meanwhile. What the server does not let be changed, the storage above all, needs the bucket deleted, with no member left.",
		flags: []flagSpec{
			{name: "replicas", kind: kindInt, value: "N", usage: "copies of the bucket, on as many servers (default: 3 if there are three servers, else 1)"},
			{name: "repair", kind: kindBool, usage: "mend what differs, the replicas too"},
		},
		needs: needClient,
		json:  []shape{{of: initLine{}}},
		examples: []example{
			{"quorate init --replicas 3", "before the first member, on three servers"},
			{"quorate init --repair", "when two servers were added to one"},
		},
		exits: []exitSpec{{ExitDone, "the bucket is as it must be"}, {ExitFailed, "failed; also: it differs"}},
		run:   runInit,
	}
}

// initAttempt is the longest that one request of init waits for its answer, before it is repeated: making a bucket on three servers takes some tens of
// milliseconds, and one that has no leader does not answer.
const initAttempt = 2 * time.Second

// initLine is what `init -o json` shows.
type initLine struct {
	Namespace   string          `json:"namespace" doc:"the namespace"`
	Bucket      string          `json:"bucket" doc:"its bucket"`
	Made        bool            `json:"made" doc:"it was made by this call"`
	Replicas    int             `json:"replicas" doc:"of the bucket"`
	Leader      string          `json:"leader" doc:"the server that leads the bucket"`
	Behind      []string        `json:"behind" doc:"servers whose replica has not caught up"`
	Differences []kv.Difference `json:"differences" doc:"how it differs from what it must be"`
	Repaired    []kv.Difference `json:"repaired" doc:"what --repair has mended"`
}

func runInit(ctx context.Context, c *call) error {
	replicas := c.integer("replicas")
	if c.isSet("replicas") && (replicas < 1 || replicas > 5) {
		return usageError("--replicas %d: NATS keeps from 1 to 5", replicas)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	nc, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	o := kv.Options{Namespace: c.g.namespace, Domain: nc.jsDomain, Replicas: replicas, Timeout: initAttempt, Logger: c.logger()}
	line := initLine{Namespace: c.g.namespace, Bucket: wire.Bucket(c.g.namespace), Behind: []string{}, Differences: []kv.Difference{}, Repaired: []kv.Difference{}}

	st, ds, err := kv.Inspect(ctx, nc.Conn, o)
	if errors.Is(err, kv.ErrBucketMissing) {
		line.Made = true
		if err := makeBucket(ctx, nc, o); err != nil {
			return c.failed(ctx, err)
		}
		st, ds, err = kv.Inspect(ctx, nc.Conn, o)
	}
	if err != nil {
		return c.failed(ctx, err)
	}
	if c.bool("repair") {
		if ds, err = kv.Repair(ctx, nc.Conn, o); err != nil {
			return c.failed(ctx, err)
		}
		line.Repaired = append(line.Repaired, ds...)
		if st, ds, err = c.caughtUp(ctx, nc, o); err != nil {
			return c.failed(ctx, err)
		}
	}
	line.Replicas, line.Leader = st.Replicas, st.Leader
	line.Behind = append(line.Behind, st.Behind...)
	line.Differences = append(line.Differences, ds...)
	if replicas != 0 && replicas != st.Replicas {
		line.Differences = append(line.Differences, kv.Difference{Field: "num_replicas", Found: fmt.Sprint(st.Replicas), Needed: fmt.Sprint(replicas)})
	}
	return c.printInit(line)
}

// makeBucket makes the bucket, or attaches to one that somebody else has made in the meantime.
func makeBucket(ctx context.Context, nc *conn, o kv.Options) error {
	s, err := kv.Open(ctx, nc.Conn, o)
	if err != nil {
		return err
	}
	s.Close()
	return nil
}

// caughtUp waits until all replicas have caught up, or the time is over: then it says which have not.
func (c *call) caughtUp(ctx context.Context, nc *conn, o kv.Options) (kv.State, []kv.Difference, error) {
	for {
		st, ds, err := kv.Inspect(ctx, nc.Conn, o)
		if err != nil || len(st.Behind) == 0 && (st.Replicas == 1 || st.Leader != "") {
			return st, ds, err
		}
		end, ok := ctx.Deadline()
		if ok && time.Until(end) < time.Second {
			return st, ds, nil
		}
		select {
		case <-ctx.Done():
			return st, ds, nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *call) printInit(l initLine) error {
	if c.g.json {
		if err := c.printJSON(l); err != nil {
			return err
		}
	} else {
		var b strings.Builder
		for _, d := range l.Repaired {
			fmt.Fprintf(&b, "%s was %s, is now %s\n", d.Field, d.Found, d.Needed)
		}
		state := "is as it must be"
		switch {
		case len(l.Differences) > 0:
			state = "differs"
		case l.Made:
			state = "was made"
		}
		fmt.Fprintf(&b, "bucket %s of namespace %s %s: %s", l.Bucket, l.Namespace, state, count(l.Replicas, "replica"))
		if l.Leader != "" {
			fmt.Fprintf(&b, ", led by %s", l.Leader)
		}
		if len(l.Behind) > 0 {
			fmt.Fprintf(&b, "; not yet caught up: %s", strings.Join(l.Behind, ", "))
		}
		b.WriteString("\n")
		for _, d := range l.Differences {
			b.WriteString(d.String() + "\n")
		}
		if err := c.print(b.String()); err != nil {
			return err
		}
	}
	if n := len(l.Differences); n > 0 {
		return failure(ExitFailed, "init: bucket %s differs in %s: 'quorate init --repair' mends it", l.Bucket, count(n, "field"))
	}
	return nil
}
