//go:build !race

package sim

import "time"

const defaultBudget = 8 * time.Second
