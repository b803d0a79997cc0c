// Package fence makes a fencing token easy to use: guards for what a leader writes to, which refuse a write that comes with an older
// token than one they have seen. There is one for a NATS key-value bucket ([KV]), one for HTTP servers ([HTTP]) and one for SQL
// databases ([SQL]). None of them needs the rest of quorate: they work with any token that only grows.
//
//	records, err := fence.NewKV(ctx, js, "reports", fence.KVConfig{})
//	err = e.Run(ctx, func(ctx context.Context, t *leader.Term) error {
//	    _, err := records.Put(ctx, "daily", report, t) // refused when a later term has written
//	    return err
//	})
//
// Why: a lease ends on its holder's clock, but a process can stand still between asking Live and writing (a long collection,
// SIGSTOP, a slow disk), and a write can lie in the network for seconds. So two terms may have writes in flight, and only what is
// written to can tell the late one: by its token.
//
// What it promises (docs/guarantees.md names the tests). F1: a guard that has accepted a token accepts no older one for the same
// record or scope, ever; a delete keeps the token too. An equal token is accepted: it is the same term. F2: a write has three
// outcomes: nil says that it is there, [ErrUnknown] that nobody can tell, and any other error, [ErrStale] too, that nothing was
// written. An unanswered write is settled by a read of the stream's leader when that can tell, and never blindly repeated. F3: a
// [Holder] that is not live any more sends nothing.
//
// What it does not promise. Everybody who writes must go through the guard: a plain Put or Purge of a guarded key, or an UPDATE beside [SQL],
// forgets the token. Tokens of different elections cannot be compared: guard one record or scope with those of one. What forgets data forgets
// tokens: a bucket with a TTL (refused unless [KVConfig.Forgets]), one that is deleted or restored, a [Memory] store at a restart.
// That a write was accepted does not say that its writer still leads, only that no later one had written there. And a guard keeps
// the late writer out; it does not make the next leader wait for it.
//
// Concurrency: all methods and functions may be called from any goroutine.
//
// Timing: a Put or Delete of [KV] takes a read and a write, two round trips; [HTTP] with a [Memory] store takes none.
package fence
