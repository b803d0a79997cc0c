// Package quorate coordinates groups of processes over NATS: one leader, known members, a settled share of the work for
// each, votes. This package opens a namespace; the work is done by the packages below it:
//
//	leader     one leader per name, with a fencing token; usable alone
//	coord      groups: join, roster, leader, messages
//	partition  a settled (index, total) for each member of a group
//	vote       ballots with one verdict each
//	fence      guards that refuse what an older token writes: key-value buckets, HTTP servers, SQL
//	metrics    Prometheus metrics
//	tracing    OpenTelemetry spans of votes and messages
//	embedded   a NATS server in this process, or one that the processes of a host share
//	testenv    servers, links to cut, pauses and invariant watchers for tests
//
// A minimal use:
//
//	nc, err := nats.Connect(url, quorate.Options(0)...)
//	ns, err := quorate.Open(ctx, nc, quorate.Config{})
//	defer ns.Close(context.Background())
//	e, err := leader.New(ns, "reports", leader.Config{})
//	err = e.Run(ctx, func(ctx context.Context, t *leader.Term) error { ... })
//
// It promises what docs/guarantees.md lists (L1-L5, M1-M3, P1-P4, V1-V3), under one clock assumption: of any two live
// processes the faster clock gains at most 5 % on the slower. It does not promise mutual exclusion for the outside world: a paused process can still have
// a write in flight, which is what the fencing token is for.
//
// A plain nats.Connect(url) keeps every guarantee (TestPlainConnections); what its settings cost is logged once (TestCostlySettingsAreTold), and [Options] has those
// that cost nothing. Only finite reconnects, or closing the connection, end things from outside: with [ErrConnClosed] (TestConnectionEnds). What follows from a
// lease, [Explain] tells (TestExplainHolds).
//
// All exported functions and methods may be called from any goroutine.
package quorate
