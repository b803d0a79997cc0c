// Package sim searches for violations of the guarantees of design section 1 in the real machines: internal/lease,
// internal/settle and internal/seat, under faults chosen at random from a seed.
//
// A [World] holds processes, each with the three machines it would own in production, and an environment that a real one
// is not kinder than: clocks that run at different rates and jump, pauses, suspends, crashes, restarts under one id, a second
// process under a live id, eviction, lost, late, duplicated and reordered messages and hints, writes that are never answered and
// land late, reads answered by a former leader of the stream, outages, and a mix of leases. One goroutine runs one world, by a heap of
// events: same [Plan], same run, to the last step.
//
// Watchers look at every begin, extension and grant, at the real moment and by the clocks of those concerned; the first
// [Violation] ends the run. What they check:
//
//	L1  two live terms at one moment
//	L2  a term begins with a token that is not above all before
//	L5  a release is sent while the term is live or its work has not returned
//	M2  two incarnations of one id are live members, or both hold assignments
//	P1  an index of a generation given to two, or outside 0..total-1, or two totals
//	P2  live assignments of two generations at one moment; a bucket that two hold
//	P3  a generation granted below one that was granted before; a bucket's token that is not higher than those of all owners before, or that
//	    changes while its owner does not
//	Q1  a share granted, a generation begun, or a term going on, with fewer members than the minimum
//	stuck  after the faults have stopped the group does not come to rest: one leader, everybody settled, buckets shared by weight
//
// Not simulated: votes, loss of the bucket, and the server itself. Absence of violations is evidence, not proof; that the
// watchers see is shown by planted bugs (planted/README.md).
package sim
