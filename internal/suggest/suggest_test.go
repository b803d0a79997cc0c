package suggest

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"machines", "store_dir", "cluster_port", "client_port", "--members", "-j"}
	for typed, want := range map[string]string{
		"machnes":               "machines",
		"macihnes":              "machines",
		"store":                 "store_dir",
		"storedir":              "store_dir",
		"c":                     "",
		"client":                "client_port",
		"cl":                    "", // two begin so
		"frobnicate":            "",
		"":                      "",
		strings.Repeat("a", 65): "",
	} {
		if got := Nearest(typed, known); got != want {
			t.Errorf("%q: got %q, want %q", typed, got, want)
		}
	}
}
