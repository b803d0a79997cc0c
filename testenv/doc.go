// Package testenv runs NATS servers for tests, and breaks what is between them and their clients.
//
// In virtual time, for almost every test:
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
//	func TestLeader(t *testing.T) {
//		testenv.Run(t, func(t *testing.T, e *testenv.Env) {
//			nc, link := e.Connect("a")
//			link.Cut(testenv.Both)
//			time.Sleep(time.Minute) // takes no time
//			link.Heal()
//			...
//		})
//	}
//
// [Run] gives the test a synctest bubble with a real nats-server in it: JetStream in memory, no socket. A [Link] stands
// between a connection and the server and understands the NATS protocol: it can be cut (nothing gets through, nothing is
// closed), healed (what was held goes on), killed, and can drop, delay or reorder single messages by a filter. At the end
// everything is closed; a goroutine that is left fails the test.
//
// On real sockets, files and synced writes, for what virtual time cannot show: [Real], and several clustered servers: [NewCluster].
//
// Concurrency: all methods may be called from any goroutine. Filters run on a link's own goroutines and must not block.
//
// Not in a bubble: sockets, hence clusters; file storage, which reads a clock of its own; t.Run and t.Parallel.
package testenv
