//go:build race

package bloc

// randomRounds of the random run: the race detector makes each about ten times as long.
const randomRounds = 20
