//go:build !unix

package cli

import "os/exec"

// ownGroup can do nothing here: what a command has started outlives it.
func ownGroup(*exec.Cmd) {}
