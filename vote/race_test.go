//go:build race

package vote_test

import "time"

// How many long runs there are, and how long each: the race detector makes each minute about ten times as long.
const (
	longRuns = 1
	longTime = 8 * time.Minute
)
