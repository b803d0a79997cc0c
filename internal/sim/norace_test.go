//go:build !race

package sim

import "time"

const defaultBudget = 20 * time.Second
