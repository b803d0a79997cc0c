// Package session decides for one session of bloc's HTTP API what its client is told, and when the member that stands for it lets go.
//
//	m := session.New(session.Config{Timeout: 4 * time.Second, Cache: 4 * time.Second}, now)
//	for _, fx := range m.Step(now, in) { ... } // whoever owns it performs the effects
//	at := m.Next()                             // and comes back with a Tick then
//
// A client of bloc asks every few seconds and in between believes what it was told last: SETTLED, until an answer says otherwise or an
// asking fails. Two of its intervals after SETTLED was said it believes that no more, whatever happened. So the gateway, which acts as a
// member on the client's behalf, keeps to these rules (docs/decisions.md, D22):
//
//	B1  SETTLED is said only while the member holds its assignment, was not asked to let go, and the lease has the cache time left:
//	    a client that nobody can reach any more has stopped before the lease ends (P2, P3)
//	B2  a revoke is acknowledged once the client cannot believe SETTLED any more: it was told otherwise (and that had an eighth of the cache time
//	    to arrive), or the cache time has passed since SETTLED was said, a twentieth more for a clock of the client's that is slow (P2)
//	B3  a client that was not heard for its timeout leaves; it believes nothing by then, or is waited for as by B2
//	B4  a client that asks too seldom for the cache time is never told SETTLED: nothing could be known of what it believes
//
// It promises nothing about a client that goes on believing after its own timeouts, or was paused: as in bloc itself.
//
// The machine is pure: it reads no clock, starts nothing, and the same inputs give the same effects. Waits run on the monotonic clock, the
// lease ends by whichever clock shows most. It is used by one goroutine at a time.
package session
