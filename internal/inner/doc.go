// Package inner is what the packages of quorate know of one opened namespace and outsiders do not: its store, clock and
// logger, the gate that lets a test hold the loops of one "process", and the probe that the invariant watchers of testenv
// listen with.
//
// It promises order and ends: a [Mailbox] keeps what is put into it in order, a [Gate] lets nothing pass while it is closed, a
// [Namespace] closes all that was opened through it, at once, and waits for it. It does not decide anything: that is for the pure machines.
//
// Concurrency: everything here may be used from any goroutine.
package inner
