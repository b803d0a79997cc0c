// Package deadline decides when a guarded command is told to end, and when it is killed.
//
//	m := deadline.New(deadline.Config{Grace: 5 * time.Second, Term: 1200 * time.Millisecond, Kill: 60 * time.Millisecond}, until)
//	for _, fx := range m.Step(now, in) { ... } // whoever owns it performs the effects
//	at, ok := m.Next()                         // and comes back with a Tick then
//
// A command works while a right holds (a leadership, a share of the work), and the right's deadline moves on with each renewal. The rules, which
// TestRules shows at a nanosecond before each moment and at it:
//
//	C1  it is not started, and told to end (TERM), once the deadline is not further away than Config.Term: renewals fail
//	C2  it is told to end at once when it is asked to, and when whoever renews is gone
//	C3  once it was told to end it is killed after Config.Grace, and in any case Config.Kill before the deadline
//	C4  it is killed at once when the right is lost
//	C5  what it leaves behind when it ends by itself is told to end, and killed, like itself
//	C6  it is over when none of its processes is left, and not before; what is to be killed is killed again until then
//	C7  no renewal brings back what was told to end
//
// A moment has come when any of the three clocks says so: a right ends by whichever shows most.
//
// The machine is pure: it reads no clock, starts nothing, and the same inputs give the same effects. It is used by one goroutine at a time.
package deadline
