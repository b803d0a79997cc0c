package dice

import (
	"math"
	"strings"
	"time"
)

// Dice gives what a fuzzed test asks for, by the bytes that it was given. When they are used up everything is the first of its kind.
type Dice struct{ data []byte }

// New gives dice that fall as the bytes say.
func New(data []byte) *Dice { return &Dice{data} }

// More reports whether there are bytes left.
func (d *Dice) More() bool { return len(d.data) > 0 }

// N is one of 0 to n-1; n is at most 256.
func (d *Dice) N(n int) int {
	if len(d.data) == 0 {
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return int(b) % n
}

// Coin is yes or no.
func (d *Dice) Coin() bool { return d.N(2) == 1 }

// Pick is one of those.
func Pick[T any](d *Dice, of ...T) T { return of[d.N(len(of))] }

// Number is small most of the time, else one that arithmetic goes wrong with.
func (d *Dice) Number() int64 {
	if n := d.N(32); n < 16 {
		return int64(n)
	}
	return Pick[int64](d, -1, 100, 200, 1000, 3000, 60_000, 600_000, 1<<31, 1<<32, 1<<53-1, 1<<53, 1<<53+1, math.MaxInt64/1_000_000, math.MaxInt64/1000, math.MaxInt64-1, math.MaxInt64, math.MinInt64)
}

// Unsigned is the same, without a sign.
func (d *Dice) Unsigned() uint64 {
	if d.N(32) == 31 {
		return math.MaxUint64 - uint64(d.N(3))
	}
	return uint64(d.Number())
}

// Name is one of a few good names, else what is none.
func (d *Dice) Name() string {
	if n := d.N(12); n < 6 {
		return string(rune('a' + n%3))
	}
	return Pick(d, "d", "e", "", "all", "x.y", ">", "a b", "\xff", "é", strings.Repeat("n", 63), strings.Repeat("n", 64))
}

// Text is short most of the time, else what is cut or refused somewhere.
func (d *Dice) Text() string {
	return Pick(d, "t", "", "another", "two\nlines", "\xff\xfe", "é", strings.Repeat("x", 255)+"é", strings.Repeat("y", 1025))
}

// Time is how much time passes: none, a little, some, or very much.
func (d *Dice) Time() time.Duration {
	return Pick[time.Duration](d, 0, time.Nanosecond, time.Millisecond, 100*time.Millisecond, 251*time.Millisecond, time.Second, 10*time.Second, 11*time.Minute, 90*time.Minute)
}
