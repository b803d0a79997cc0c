// Package scenarios breaks real processes, sockets, disks and clusters, and proves from what the processes print that no guarantee was
// broken. It is tests only, behind the build tag "scenarios"; docs/proof.md has the table of what is run, and what was last seen.
//
//	go test -tags scenarios ./proof/scenarios -count=1 -timeout 10m
//	go test -tags scenarios ./proof/scenarios -count=1 -timeout 60m -run 'Scenarios/cluster/drop' -scenarios.rounds 20
//
// Needs Linux, root, and the Debian packages iptables and iproute2. Everything happens in network and mount namespaces of the test's
// own, which end with it: the machine's own interfaces, rules and mounts are never touched.
//
// In a world of its own each scenario runs NATS servers (one with synced writes, or three clustered with a bucket of three replicas), three
// members (`quorate join --items --vote yes -o json`) and two workers, which campaign in a plain election and write their token to a
// fenced register while they lead, and some more when they do not lead any more. Each is a process in a network namespace of its own.
// A client asks for a vote each second. The fault happens once all is well, and all has to be well again after it.
//
// One scenario has two hundred more members, twenty in each of ten processes, join and leave at random.
//
// Promised: L1, L2, P1, P2, P3 and V1 hold over the lines of all processes (internal/eventcheck), the register has never accepted an older
// token, no item of the work is nobody's for longer than what has happened allows by quorate.Explain (P5), each vote is answered by its
// deadline (V3), and the fault really happened: a rule dropped packets, a process was in state T,
// a server was dead, a write met a full disk. These are asserted always. That all is well again is waited for, for minutes if need be:
// a slow machine fails nothing. P5 alone is about time: where this process was held up, that is allowed for.
//
// Not promised: how soon anything happens. The table shows it, as seen on one machine.
package scenarios
