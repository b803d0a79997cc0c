// Package leader elects one leader per name over NATS: an [Elector] campaigns, a [Term] is what it wins, with a fencing
// token. It can be used alone; groups (package coord) use it for theirs.
//
//	e, err := leader.New(ns, "reports", leader.Config{})
//	err = e.Run(ctx, func(ctx context.Context, t *leader.Term) error {
//	    for t.Live() { ... write with t.Token() ... }
//	    return nil
//	})
//
// What it promises (docs/guarantees.md names the tests): at most one live term at any instant (L1); tokens that strictly
// increase (L2); a term that cannot prove its lease ends by itself, by all clocks, also in a process that was paused (L3); three outcomes for
// every write (L4); a hand-over of one write and one notification, sent only after the guarded work has returned (L5).
//
// What it does not promise: a lease is not mutual exclusion for the outside world. A process that is paused between
// asking Live and writing writes late; only the token, checked where the write arrives, keeps that out.
//
// Two ends of a term. A soft end (resign, step-down, shutdown) ends the callback's context ([Term.Work]); the lease goes on being
// renewed until the callback returns, at most Config.Grace, and Live stays true. A hard end (deadline, proven loss) ends
// [Term.Context] too. [context.Cause] tells why.
//
// Timing: a holder renews every lease/6 and holds until lease - lease/10 after the last renewal that was answered was
// sent. A candidate takes over when it has seen no newer revision for a full lease, on its own clock.
//
// Concurrency: all methods may be called from any goroutine. Callbacks run in the goroutine that called Run, never under a lock.
package leader
