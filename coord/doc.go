// Package coord makes groups of processes: who is a member, who leads, and messages between them.
//
//	g, err := coord.Join(ctx, ns, "workers", coord.Config{})
//	defer g.Leave(context.Background())
//	for view, err := range g.Watch(ctx) { ... view.Members, view.Leader ... }
//
// A [Group] is one process's membership, a [Client] only reads, sends and asks. Package partition gives members shares
// of work, package vote lets them vote. Every leader serves all of it, also when its own program uses none.
//
// What it promises (docs/guarantees.md names the tests): a member is in the roster from its join until it leaves, is
// evicted, or its lease runs out, and these are told apart (M1: TestWatchTellsReasons, TestLeaderFails, TestEvict); two live processes
// never both act as the same id (M2: TestTwoProcessesOneID, TestTwoWaitersOneID, TestNoMessagesWhileNotLive); an outage of NATS is not
// everyone dying (M3: TestOutageAccusesNobody). All of it holds in two hours of faults of every kind (TestRandomFaults).
//
// A group whose members join with Config.MessagingOnly has no leader: each member holds a lease on its own record, and they exchange messages (TestMessagingOnly).
//
// Messages go to all, to the leader or to one member, by topic: [Client.Send], [Client.Ask] for an answer, [Client.Gather] for an answer of each
// member; [AskJSON] and [HandleJSON] with values. Each carries its sender's incarnation, and its token if it leads (TestMessageSaysItsSender), so
// that [Group.HandleOrders] can drop what a past leader sent (TestOrdersOfAPastLeader).
//
// What it does not promise: messages are at-most-once: a message can be lost, and nobody is told. A question that was delivered and not
// answered is asked again only with [Retry], and may then be handled by two processes, one after the other (TestRetryAcrossLeaderCrash), but not twice by one
// (TestRetryIsHandledOnce). Whom a message says it is from, and with which token, is what its sender says. A restart of an id that another process still acts
// under waits until that has left or its lease has run out, however dead it is: up to a member timeout, and a lease more if it led.
//
// A member that leaves hands its leadership over first, so that the next leader hears it leave; then its work is asked to
// return, its record is removed, and the leader is told.
//
// A group with a minimum size (Config.MinSize) has no leader while fewer members are there (Q1: TestMinSize). Whoever was elected keeps the members and
// the lease, and leads, by another term, once they are enough.
//
// A group counts with its leader's settings. A member that is set otherwise follows them and logs that once (TestDifferenceReportedOnce), so a change of
// configuration can be rolled out process by process (TestRollingLease).
//
// Timing: each member sends the leader a heartbeat every lease/6; the reply grants membership for two leases by the
// leader's count, a tenth less by the member's. Who crashes is out after two leases.
//
// Concurrency: all methods may be called from any goroutine. Handlers run one call at a time per topic, in order of arrival, on
// goroutines of their own. A flood costs a bounded amount of memory: 4096 messages or 64 MiB wait for a handler, the rest is dropped.
package coord
