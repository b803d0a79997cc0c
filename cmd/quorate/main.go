// Command quorate is the command line of package quorate: see package cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	_ "golang.org/x/crypto/x509roots/fallback" // where the system has no certificate authorities: in an image that holds this binary alone

	"github.com/quorate/quorate/cli"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())

	// The first INT or TERM asks: commands leave their group, then end. A second INT means it: at once, 130.
	asked := make(chan os.Signal, 2)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		s, _ := (<-asked).(syscall.Signal)
		cancel(cli.Interrupted(s))
		for s := range asked {
			if s == syscall.SIGINT {
				os.Exit(cli.ExitInterrupted)
			}
		}
	}()

	// A reader of our output that went away must not kill a member before it has left its group: with SIGPIPE
	// caught a write fails instead. (Caught and not ignored: programs we start would inherit that.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	os.Exit(cli.Main(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
