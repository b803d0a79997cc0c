package cli

import (
	"os"
	"strings"
	"unicode/utf8"
)

// readItems reads the items that a group shares: the lines of a file, empty ones left out. An item is told apart by its
// text alone, and goes to its owner: equal lines have the same one.
func readItems(flag, path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, failure(ExitFailed, "%s %s: %w", flag, path, plainFile(err))
	}
	items := []string{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" {
			continue
		}
		if !utf8.ValidString(line) {
			return nil, failure(ExitFailed, "%s %s: line %d is not UTF-8: event lines are JSON, which could not show it", flag, path, n)
		}
		items = append(items, line)
	}
	return items, nil
}

// shareOf are the items that owns says are its own, in their order; not nil.
func shareOf(items []string, owns func(string) bool) []string {
	own := []string{}
	for _, item := range items {
		if owns(item) {
			own = append(own, item)
		}
	}
	return own
}
