//go:build !race

package partition_test

// defaultHours of the random run.
const defaultHours = 0.4

// often is at how many moments TestLeaderEndsWhileSettling ends the leader.
const often = 5
