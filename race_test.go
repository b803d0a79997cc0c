//go:build race

package quorate_test

import "time"

// defaultTime of the random run: the race detector makes each minute about ten times as long.
const defaultTime = 5 * time.Minute
