package cli

import (
	"net"
)

// notify tells systemd, or whoever else listens on NOTIFY_SOCKET, how it goes: sd_notify(3) in a few lines. Without the variable, or with nobody there,
// nothing happens.
func (c *call) notify(state string) {
	path := c.env["NOTIFY_SOCKET"]
	if path == "" {
		return
	}
	// A name that begins with @ is one of the kernel's own, as net has it too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state)) // who does not hear it will say so by its own time-out
}
