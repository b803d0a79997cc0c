//go:build !race

package leader_test

import "time"

const (
	defaultTime    = time.Hour // of the random run
	manyCandidates = 1000
	manyElections  = 500
	// What an election that is held may take of the heap and of stacks, the server's part in this process included (5 KB). Garbage comes on top, as much again as
	// the heap by default: so ten thousand fit into 300 MB.
	perElection   = 20 << 10
	longestOutage = 2 * time.Hour
)
