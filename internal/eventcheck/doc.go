// Package eventcheck proves from event lines what was promised: the lines that `quorate join -o json` prints (docs/events.md), of
// all processes of one machine, each of which says from when to when its process held something.
//
//	var all []eventcheck.Witness // one for each process, with its lines in order
//	for _, wrong := range eventcheck.Check(all) {
//		t.Error(wrong)
//	}
//
// [CheckOrphans] demands of the same lines that no item was nobody's for too long: how long that is, and what has happened, the caller says.
//
// It knows nothing of the code that printed the lines: it reads them as any program of a user would, so it stands for the contract
// and not for what the code happens to do. The demo, the tests of the command and the fault scenarios use it.
//
// It proves nothing about a machine whose wall clock was set meanwhile. Its own tests (TestCheck, TestCheckLoss, TestCheckShares, TestCheckOrphans)
// have a crafted history for each thing that it must find. All functions are pure.
package eventcheck
