package bloc

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// Config of a gateway.
type Config struct {
	// Timeout is bloc's -t: a client that was not heard for so long is gone. Default: the settle time.
	Timeout time.Duration
	// Settle is bloc's -s: the group is shared anew once nobody has come or gone for so long, while a gateway leads it; and so long a client
	// may go on believing SETTLED without being heard: at least two of its intervals. Default 1.5 leases, and half a lease of quiet.
	Settle time.Duration
	// Interval is how often clients ask, at most. Default: half the settle time, or the timeout if that is shorter.
	Interval time.Duration
	// ID of the gateway's own member. Default: made from the host's name.
	ID string
	// Listen is where clients reach the gateway, for others to read.
	Listen string
	// Sessions that the gateway holds at most. Default 4096.
	Sessions int
	// Logger for what users cannot see otherwise.
	Logger *slog.Logger
}

// most is how many hundredths of a lease the settle time may have: a member holds for 1.8 leases after the heartbeat that was answered last,
// and that is up to a sixth of a lease ago (B1).
const most = 163

// DefaultSettle is the settle time for a lease.
func DefaultSettle(lease time.Duration) time.Duration {
	return (lease + lease/2).Truncate(time.Millisecond)
}

// quiet is how long the roster is to be quiet before the work is shared anew.
func (c Config) quiet() time.Duration { return c.Settle }

// with fills in the defaults.
func (c Config) with(lease time.Duration) (_ Config, quiet time.Duration) {
	quiet = c.quiet()
	if c.Settle == 0 {
		c.Settle = DefaultSettle(lease)
	}
	if c.Timeout == 0 {
		c.Timeout = c.Settle
	}
	if c.Interval == 0 {
		c.Interval = min(c.Settle/2, c.Timeout)
	}
	if c.Sessions == 0 {
		c.Sessions = 4096
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, quiet
}

// Check returns the inequality that does not hold for a group with this lease.
func (c Config) Check(lease time.Duration) error {
	if c.Timeout < 0 || c.Settle < 0 || c.Interval < 0 || c.Sessions < 0 {
		return errors.New("session timeout, settle time, client interval and number of sessions cannot be negative")
	}
	if c.ID != "" {
		if err := wire.CheckID(c.ID); err != nil {
			return err
		}
	}
	c, _ = c.with(lease)
	switch {
	case c.Settle < 10*time.Millisecond || c.Timeout < 10*time.Millisecond:
		return fmt.Errorf("settle time %v, session timeout %v: at least 10ms are needed", c.Settle, c.Timeout)
	case c.Settle < 2*c.Interval:
		return fmt.Errorf("settle time %v < 2 client intervals of %v: a client may believe SETTLED for two of its intervals", c.Settle, c.Interval)
	case c.Settle > lease*most/100:
		return fmt.Errorf("settle time %v > 1.63 leases of %v: SETTLED could never be said for so long: a lease of %v is needed, or a shorter settle time",
			c.Settle, lease, c.needs())
	case c.Timeout < c.Interval:
		return fmt.Errorf("session timeout %v < client interval %v: clients would be gone between two questions", c.Timeout, c.Interval)
	}
	return nil
}

// needs is the shortest lease for the settle time, in tenths of a second.
func (c Config) needs() time.Duration {
	const step = 100 * time.Millisecond
	return (c.Settle*100/most + step).Truncate(step)
}
