//go:build race

package sim

import "time"

// defaultBudget: nothing here happens at once, so the race detector has nothing to see.
const defaultBudget = 2 * time.Second
