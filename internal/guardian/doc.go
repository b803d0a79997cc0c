// Package guardian runs a command only as long as a right holds (a leadership, a share of the work), and ends all that it has started before
// the right ends, also when the process that renews the right is killed or stopped.
//
//	g, err := guardian.Start(guardian.Config{Path: "/bin/backup", Args: []string{"backup"}, Lease: lease, Term: lease * 4 / 10, Left: term.Left, ...})
//	<-g.Done() // only now may the right be released (R12, R39)
//	res := g.Result()
//
// Between the process that renews (here: quorate) and the command stands a third one, the guardian: quorate again, started from the same
// program file, which its main hands to [Main]. The guardian is the command's parent. It is told the deadline over a pipe at each renewal, on the clocks that both
// read alike (clock.Shared), and does by itself what package deadline decides. quorate watches the guardian by the same rules with half its margin:
//
//	quorate is killed        the pipe ends: TERM at once, KILL after the grace, at the latest before the deadline
//	quorate is stopped       nothing is renewed: TERM, KILL before the deadline
//	the guardian is killed   the kernel kills the command; quorate adopts, kills and waits for what that has started
//	the guardian is stopped  quorate kills it, then as above, before the deadline or after the grace
//
// The command has a process group of its own, in a session of the guardian's own: what is typed at a terminal reaches quorate alone. On Linux what it has
// started is found wherever it is, for orphans are handed to the guardian (PR_SET_CHILD_SUBREAPER): processes that left its
// group or session, daemons too. It is over when the guardian has no child left.
//
// Promises: nothing of the command lives when the right ends (TestUnrenewed, TestLost, TestGuardianKilled, TestGuardianStopped, TestSupervisorGone), nor when
// [Guard.Done] is closed (TestAsked, TestLeftBehind). The tests of `quorate run` in package cli show the same with leaders.
//
// Not promised. If quorate and the guardian are killed in one blow the command itself is killed by the kernel, but what it has started lives on; if both are stopped
// nobody ends anything, and if the guardian is killed while quorate is stopped what the command has started waits for quorate. What changes its user so that quorate may not signal it, or hangs in the kernel, lives on. If the guardian is killed, a process that has both left its
// session and emptied its environment is not found. On systems other than Linux only the process group is ended, and a killed guardian's command only
// if quorate lives. There the fencing token protects, as everywhere.
//
// Concurrency: the methods of a [Guard] may be called from any goroutine. Timing: the guardian looks at the clocks every tenth of a second, for a suspend shows on no timer.
package guardian
