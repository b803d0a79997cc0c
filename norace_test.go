//go:build !race

package quorate_test

import "time"

// defaultTime of the random run.
const defaultTime = 15 * time.Minute
