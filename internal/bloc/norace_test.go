//go:build !race

package bloc

// randomRounds of the random run.
const randomRounds = 60
