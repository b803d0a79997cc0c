// Package kv is the coordination bucket of one namespace: TTL'd compare-and-set with three outcomes, authoritative reads,
// and a watch that is only ever a hint (design sections 3 and 4.1; field rules R5-R10, R15-R20, R37).
//
//	s, err := kv.Open(ctx, nc, kv.Options{Namespace: "default"})
//	rev, out, err := s.Do(ctx, kv.Write{Key: "leader.workers", Expected: 0, Value: record, TTL: time.Minute})
//	switch out {
//	case kv.Yes:     // stored as rev
//	case kv.No:      // the key is not at the expected revision
//	case kv.Unknown: // s.Read, and look for the nonce in the record
//	}
//
// What it promises:
//
//   - Every write names the revision it replaces. Its outcome is [Yes], [No] or [Unknown]; Unknown is settled by the
//     caller with [Store.Read] and the nonce in the record, never guessed (TestWriteOutcomes, TestExactlyOneWins,
//     TestLostAcknowledgementIsUnknown, TestAnswersThatProveNothing). Nothing else in quorate writes to the bucket
//     (TestNobodyElseWritesKeys).
//   - Every write sets its TTL (TestKeyExpiresAfterRenewals); a removal is a purge that says why and goes by itself
//     (TestPurgeTellsWhyAndGoes).
//   - [Store.Read] and [Store.List] ask the stream's leader, never a replica.
//   - [Store.Watch] tells the latest of each key within one reconcile even if every hint is lost
//     (TestWatchSeesChangesWithoutHints), after a gap or reconnect within 100 ms (TestWatchClosesGap, TestWatchLooksAfterReconnect),
//     and also that a key is gone without a trace (TestWatchFindsVanishedKeys). What anybody but the server publishes as a hint is
//     dropped (TestForgedHintsAreDropped). No JetStream consumer is ever made.
//   - A bucket that was lost, made again or put back to an older state is noticed: [Store.Lost], [ErrBucketLost],
//     [Store.Reattach] (TestBucketLostAndMadeAgain, TestBucketGoneIsMadeAbove, TestRestoredBucketIsNoticed). Who only reads
//     attaches again by itself once somebody has made the bucket (TestHeals).
//   - An existing bucket with another configuration is refused, and never changed except by [Repair]
//     (TestBucketOfAnotherConfigurationIsRefused, TestDifferences). What is missing at the server is named
//     (TestMissingPermissionIsNamed, TestServerWithoutJetStreamIsRefused, TestCheckVersion).
//
// What it does not promise: an answer of the stream's leader may still be old across a change of that leader, so a read older than
// a revision already seen proves nothing; who watches may miss revisions between the latest ones; a write that is Unknown
// may land as late as the connection's buffers and the network let it.
//
// Concurrency: all methods may be called from any goroutine. Callbacks of a [Watch] run on one goroutine per watch, those of
// [Store.Hints] and [Store.OnReconnect] on goroutines of the store and must not block; none runs under a lock. [Store.Close] waits for
// all of them. A store has two goroutines, each watch one more, a hint none.
//
// Timing: one attempt takes at most Options.Timeout, a look at the bucket as a whole two seconds. A watch looks each Reconcile, at one
// request while nothing was missed. The bucket's identity is checked each ten Reconciles (at most 10 s), after each reconnect, and when a
// write finds nobody; a bucket that is gone or went back is given up when two looks 250 ms apart agree.
package kv
