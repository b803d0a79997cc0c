//go:build race

package proof_test

import "time"

// defaultFor is the time of each random test: the race detector makes each minute about ten times as long.
const defaultFor = 3 * time.Minute

// defaultHours of TestTwoHundred.
const defaultHours = 0.1
