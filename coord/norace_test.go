//go:build !race

package coord_test

const (
	defaultHours = 1.0  // of the random run
	wholeDay     = true // in which the last of a dead group vanishes
)
