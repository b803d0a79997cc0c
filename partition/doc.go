// Package partition gives each working member of a group a settled share of the work: an index of a total, one generation at a time, and, if the
// work is cut into a fixed number of buckets, a set of those.
//
//	p, err := partition.Join(ctx, g, partition.Config{})
//	err = p.Run(ctx, func(ctx context.Context, a *partition.Assignment) error {
//	    for _, item := range items {
//	        if a.Owns(item) && a.Live() { ... }
//	    }
//	    <-ctx.Done()
//	    return nil
//	})
//
// With buckets a change of the members interrupts only what changes hands:
//
//	p, err := partition.Join(ctx, g, partition.Config{Buckets: 64})
//	err = p.RunBuckets(ctx, func(ctx context.Context, b *partition.Bucket) error {
//	    return consume(ctx, b.N, b.Token()) // until ctx ends; whose a key is says b.Owns(key)
//	})
//
// Who is no member asks [Owner], or keeps a [Table].
//
// What it promises (docs/guarantees.md names the tests): within a generation indexes are distinct and exactly 0..total-1
// (P1); no two members ever hold live assignments of different generations: everyone has let go, or its lease has run
// out, before anyone is granted (P2); an assignment that cannot be proven ends by itself, by all clocks, and its generation is a fencing
// token (P3); a change of leader as such revokes nothing (P4). No bucket is ever held by two members, and one that keeps its owner is held over
// generations, with one token. Buckets are shared evenly, by weight, over members and zones, and no more of them move than have to.
//
// What it does not promise: that every share is worked on at every moment. Between generations nobody works, or, with buckets, nobody on those that
// move; after a crash the share is idle for the member timeout and the settling time.
//
// Letting go. When a generation ends, the context that the work runs under ends (softly: [Assignment.Live] stays true),
// and the revoke is acknowledged when all users of the Partition have let go: [Partition.Run] when its callback has
// returned, [Partition.Watch] when its loop body asks for the value after the one that told of the revoke, who only polls
// [Partition.Assignment] at once: so who polls asks Live at each step. [Partition.RunBuckets], [Partition.WatchBuckets] and [Partition.Buckets] are
// the same for buckets, and are asked only for those that move. Whoever takes longer than the acknowledgement timeout runs out of
// its lease, and gets no place until it has let go.
//
// Run with buckets. A generation ends every assignment, also one whose buckets stay: its index, total and generation are others. So in a
// group with buckets Run stops for a moment at each change, all the same.
//
// Concurrency: all methods may be called from any goroutine. Callbacks run in the goroutine that called Run, those of RunBuckets each in one of its
// own.
package partition
