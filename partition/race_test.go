//go:build race

package partition_test

// defaultHours of the random run: the race detector makes each about ten times as long, and goes by what happens before what, which the first
// minutes show.
const defaultHours = 0.1

// often is at how many moments TestLeaderEndsWhileSettling ends the leader.
const often = 2
