// Package vote lets the members of a group decide together: any client proposes, the members that vote answer, and the
// group's leader seals one verdict.
//
//	v, err := vote.Join(ctx, g, vote.Config{Decide: func(ctx context.Context, b vote.Ballot) vote.Answer {
//	    if ready { return vote.Yes() }
//	    return vote.No("still draining")
//	}})
//	defer v.Close(context.Background())
//
//	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
//	verdict, err := vote.Propose(ctx, g.Client, vote.Proposal{Topic: "switch over", Kind: vote.TwoThirds})
//	if err == nil && verdict.Won() { ... }
//
// With Proposal.At it is a timed action: who says yes runs its Config.Act at that instant.
//
//	v, err := vote.Join(ctx, g, vote.Config{Decide: decide, Act: func(ctx context.Context, b vote.Ballot) error { return open(valve) }})
//	verdict, err := vote.Propose(ctx, g.Client, vote.Proposal{Topic: "open the valve", Kind: vote.Consensus, At: time.Now().Add(10 * time.Second)})
//	outcome, err := verdict.Outcome(ctx) // after the instant: done, failed, late, cancelled or unheard, for each
//
// # What it promises
//
//   - V1: one verdict per ballot: the one sealed in the bucket. What [Propose], [Watch] and [Recent] tell was sealed before.
//     TestLeaderKilled, TestSealUnanswered, TestLongRun.
//   - V2: the electorate is frozen when a round of the ballot opens: who joins later, or comes back as a new incarnation,
//     does not count in it; each member counts once; a ballot is decided as soon as no further vote can change it.
//     TestKinds, TestEarly, TestFrozenElectorate, TestElectorateOfNewLeader.
//   - V3: [Propose] answers by its deadline: with the sealed verdict (yes, no, timed-out), or with unknown, which can be
//     asked for again by ballot id. TestNoLeader, TestProposerCutOff, TestLongRun.
//   - A1: an action begins only after the yes of the group is sealed, in members that said yes, at most once in each incarnation, and not before
//     the instant by more than the bound to which the member knows the leader's clock. Who learns of the verdict in time begins within the
//     tolerance of the instant by its own clocks; any other does not begin, and reports late. A change of leader in between changes nothing.
//     TestAction, TestActionLeaderKilled, TestActionVerdictUnheard, TestActionCutOff, TestActionPaused, TestActionRestarted.
//   - Who knows that clock worse than to the tolerance when it is asked votes no by itself, and says why. TestActionTolerance.
//   - A member is asked once per ballot, by however many leaders it is run, and repeats its answer. It answers only while
//     its membership is live, as its present incarnation (M2). TestAskedOnce.
//
// # What it does not promise
//
// That only the electorate is asked: with more than sixteen voters who has just joined is asked too, and not counted. That a ballot can be stopped: [Cancel] ends one that is not sealed yet,
// and an action in the members that hear of it before the instant. That all begin an action: a member that said yes may crash a moment
// later, stand still over the instant, or hear of the verdict too late; the outcome says so. That who is unheard has not acted. That a verdict is kept for ever: it is for an hour. That a ballot whose proposer has gone is decided: a ballot lives on its
// proposer's asking, and when its leader dies nobody else runs it. That [Watch] tells a verdict that was sealed before it
// began: [Recent] does.
//
// # The rules
//
// Over the n members that vote when the round opens: [Majority] 2 yes > n, [TwoThirds] 3 yes >= 2 n, [Consensus] yes = n,
// [AtLeast] k yes. Abstentions and silence stay in n, and the silent are named. Who has just crashed is in n until its membership
// has run out (two leases): a majority does not wait for it, a consensus does, in vain. With n = 0: [ErrNoVoters].
//
// # Timing
//
// The deadline of Propose's context is the ballot's, at most ten minutes; without one it is two leases. Of the time there is
// the last eighth, at most a lease/12, is kept for reading the verdict key when no leader answered; before that the leader keeps a
// quarter, at most lease/6, for sealing timed-out. A proposal that is not answered is asked again after lease/6, then after twice
// the time before, and at once when another leader shows up. When a leader crashes, the next one needs a lease to take over: a
// deadline beyond that rides it out.
//
// An instant is a reading of one clock: the leader's boot-time clock. The proposer asks for it and converts its own wall time; each member
// knows it from its heartbeats, to half the round trip and 5 % of the time since, so to about 25 ms at the default lease; and better just
// after an exchange, which a member asks for before it says yes and shortly before the instant. Tolerances down to a few milliseconds work over
// quick connections. After the loss of its leader an instant is kept by the last conversion; what that may be off by then (50 ms for each second by the
// only assumption about clocks; in truth far less) is in the report. A yes is sealed up to lease/6 before the instant, and an instant lies at most 30 minutes ahead.
//
// # Concurrency
//
// All functions may be called from any goroutine. Config.Decide is called for each ballot on a goroutine of its own, several at once
// when several ballots are open. So is
// Config.Act for each action. Config.Reported is called for one after the other, on a goroutine of its own.
package vote
