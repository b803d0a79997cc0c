package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

// Boot must be the same clock whichever way it is read: a deadline taken one way is compared the other way when the wall clock jumps.
func TestBootIsOneClock(t *testing.T) {
	const late = time.Second // a machine can be busy between two readings
	for range 100 {
		now := Now()
		if d := now.Boot - boot(now.Mono, 0); d > late || d < -late {
			t.Fatalf("boot time read alone and as a difference are %v apart", d)
		}
	}
}

// In a bubble time is the bubble's, on all three clocks.
func TestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := Now()
		time.Sleep(1000 * time.Hour)
		after := Now()
		for _, d := range []time.Duration{after.Mono - before.Mono, after.Boot - before.Boot, after.Wall - before.Wall} {
			if d < 1000*time.Hour-time.Second || d > 1000*time.Hour+time.Second {
				t.Errorf("%v passed, want 1000 h", d)
			}
		}
	})
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		Now()
	}
}
