//go:build !race

package proof_test

import "time"

// defaultFor is the time of each random test.
const defaultFor = 10 * time.Minute

// defaultHours of TestTwoHundred.
const defaultHours = 0.4
