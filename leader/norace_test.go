//go:build !race

package leader_test

import "time"

const (
	defaultTime    = time.Hour // of the random run
	manyCandidates = 1000
	manyElections  = 500
	longestOutage  = 2 * time.Hour
)
