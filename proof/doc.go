// Package proof holds tests only: it records histories of what users of quorate see, and has a checker that knows nothing of quorate
// decide whether a simple sequential object could have given the same answers, in an order that fits the times (linearizability, by
// porcupine).
//
//	go test ./proof                                     # two worlds of each kind, some seconds
//	go test ./proof -proof.for 1h                       # an hour of virtual time
//	go test ./proof -run TestTwoHundred -proof.hours 3      # three
//	go test ./proof -run TestLock -v -proof.seed N      # one run again
//
// A world is a NATS server and several processes in virtual time (testenv.Run), under cuts, lost acknowledgements, late and reordered
// messages, pauses, suspends, clock jumps, resets and kills. Two kinds of histories are taken:
//
//   - a lock with tokens (TestLock): campaigns, observations of Live, ends of terms, releases, and reads of who leads. At most one term is live,
//     tokens only grow (L1, L2), a read shows what was last written, and a confirmed release is a release.
//   - a register behind package fence (TestFencedRegister): writes by holders and by former ones, who stood still between asking and writing, and
//     reads. No older token is accepted (F1), and what is said of a write is true (F2).
//
// And intervals in which members had their shares (TestTwoHundred), of two hundred that join and leave at random for hours under faults: no share is anybody's
// while another has it, and none is nobody's for longer than what quorate.Explain says of what has happened (P1, P2, P3, P5).
//
// An operation without an answer counts as perhaps applied, at any time from its call on (R41). Each run demands that there were such
// operations, contention, late writes and faults: a run in which nothing happened proves nothing. The models are tried on histories that are
// wrong on purpose (TestModels), and the planted bugs of docs/guarantees.md show that bugs in the code are seen.
//
// What it does not show: a restart of the server in virtual time loses its memory, which is the documented exception to L1 and L2; TestLockOverRestarts
// covers restarts, on a real server with files. That no violation was found is evidence, not proof.
//
// Concurrency and timing: tests of one process run one after the other; the checks are bounded, and one that does not end is a failure.
package proof
