//go:build race

package coord_test

// The race detector makes everything about ten times as long, and goes by what happens before what: less of the same shows it as much.
const (
	defaultHours = 0.12  // of the random run
	wholeDay     = false // in which the last of a dead group vanishes
)
