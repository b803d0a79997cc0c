// Package ballot decides votes: the machine of a group's leader ([Machine]), the voter's memory ([Voter]), its part in actions ([Actor]) and the count
// ([Tally]). All four are pure: told the time, told what happened, they say what to do. The shell that owns them in one
// goroutine does it.
//
//	m := ballot.New(token, lease)                 // one for each term
//	for _, e := range m.Step(clock.Now(), ballot.Propose{...}) { perform(e) }
//	timer.Reset(m.Next().Sub(clock.Now()))        // unless m.Next() is zero
//
// # What it promises
//
//   - V1: one verdict per ballot. A verdict is told (answered or announced) only after the seal was confirmed, or after
//     it was read from the key; the seal expects that nothing, not even a marker, is there; an unknown seal is repeated
//     unchanged; one that finds another verdict adopts it. TestSealedBeforeTold, TestUnknownSeal, TestRandomRuns.
//   - V2: the electorate is frozen when the round opens, each member (id and incarnation) counts once, and the verdict
//     is sealed by the first vote that settles it. TestVotes, TestEarly, TestTallyAgainstBruteForce.
//   - V3: each request is answered by its deadline: with the sealed verdict, or as unknown, which can be asked for again
//     by ballot id. TestDeadlines, TestRandomRuns.
//   - A1: an action begins once, after a sealed yes of a round in which the voter said yes, at its instant or within the tolerance after
//     it. TestActor, TestActorRandom, TestActions.
//   - A voter is asked once per ballot id and repeats its answer in later rounds. TestVoter.
//
// # What it does not promise
//
// That a ballot under a marker, or one whose verdict's hour in the bucket is over, is known: it is unknown for ever.
// That every voter hears a ballot: broadcasts are at-most-once, repeated while somebody is silent. That votes of a round
// which died with its leader count: the next leader asks again. That nobody is asked twice when a voter hears of more than
// [MaxRemembered] ballots within [Retention]. When acknowledged data is removed from the bucket by a foreign hand, a
// ballot asked for again may run again.
//
// # Timing
//
// All waits are on the monotonic clock. Of the time left L to a request's deadline, counted from its receipt, the last
// margin = min(lease/6, L/4) is kept for sealing: an undecided ballot is sealed timed-out at L - margin. A request whose
// verdict is not confirmed by L - margin/4 is answered unknown then, so that the answer can still arrive; the ballot goes
// on being sealed. Failed reads and unknown seals are repeated after lease/12; once nobody waits for the ballot, after twice the time
// before, up to a lease, and no longer than [Retention]. Broadcasts are repeated after lease/6, then after twice the time before, up to a lease.
//
// Actions wait for their instant by the boot-time clock: a suspend does not make it later. Whose clock is known too badly to say yes waits lease/6
// for an exchange that makes it better. Who said yes and has heard nothing reads the key from lease/6 before the instant on. A report is repeated
// after lease/6, then after twice the time before, up to four leases.
//
// # Concurrency
//
// None: a Machine, Voter or Actor belongs to one goroutine. What effects carry is shared with the machine and must not be changed.
package ballot
