//go:build race

package leader_test

import "time"

// The race detector makes everything about ten times as long, and goes by what happens before what: less of the same shows it as much.
const (
	defaultTime    = 15 * time.Minute // of the random run
	manyCandidates = 150
	manyElections  = 100
	perElection    = 80 << 10
	longestOutage  = 10 * time.Minute
)
