//go:build !race

package sim

import "time"

const defaultBudget = 12 * time.Second
