//go:build !race

package vote_test

import "time"

// How many long runs there are, and how long each.
const (
	longRuns = 3
	longTime = 20 * time.Minute
)
