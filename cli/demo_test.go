package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestSummary(t *testing.T) {
	for n, want := range map[int]string{40: "alfa bravo charlie", 18: "alfa bravo charlie", 17: "alfa … 2 more", 3: "… 3 more"} {
		if got := summary([]string{"alfa", "bravo", "charlie"}, n); !strings.HasPrefix(got, want) && n > 3 {
			t.Errorf("summary in %d: %q, want %q", n, got, want)
		} else if n > 3 && len([]rune(got)) > n {
			t.Errorf("summary in %d: %q", n, got)
		}
	}
	if got := fmt.Sprint(msText(1500*time.Microsecond), " ", msText(1234567*time.Microsecond)); got != "1.5 ms 1235 ms" {
		t.Errorf("msText: %q", got)
	}
}
