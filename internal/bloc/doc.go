// Package bloc speaks bloc's HTTP API over a group, so that unchanged clients of bloc are members of it, beside native ones.
//
//	gw, err := bloc.Open(ctx, ns, "workers", bloc.Config{Timeout: 4 * time.Second, Settle: 4 * time.Second})
//	go bloc.Serve(listener, gw)
//	defer gw.Close(ctx)
//
// A client sends GET /index with the header Bloc-Session-ID and hears {"status": "SETTLED", "index": 1, "total": 3} or
// {"status": "SETTLING"}; DELETE /session ends its session. Each session is a member of the group under the session's id; which client may
// believe what, and when its member lets go, is the pure machine of package session. The gateway is a member too: it leads if nobody else
// does, and has no share.
//
// What it promises: a session lives on one gateway. A question that reaches another is forwarded (one message of the group and its answer), and when
// the gateway that has the session is gone, the next one takes it over as M2 allows: SETTLING until its lease has run out
// (TestForwarded, TestGatewayKilled). No two clients believe in assignments of different generations, as long as each keeps to its own timeouts
// (TestRandomFaults). Bad input gets an HTTP error, and harms nobody but its sender (TestBadInput, TestSlowClients).
//
// What it does not promise: anything about a client that was paused, or believes an answer longer than two of its intervals. Bloc has no
// fencing token, so neither have its clients here.
//
// Concurrency: all methods may be called from any goroutine. Each session has a goroutine of its own that owns its machine.
package bloc
