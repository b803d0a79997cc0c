package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"unicode"

	"github.com/quorate/quorate/internal/wire"
)

// Exit codes (design section 7). `run` has more: its CMD's own, and 128+n for the signal n that ended CMD.
const (
	ExitDone        = 0   // done; a vote: yes; a command that runs on: ended by INT or TERM after leaving
	ExitFailed      = 1   // failed; also: no such group, evicted
	ExitUsage       = 2   // wrong usage
	ExitNo          = 3   // a vote's no
	ExitUnanswered  = 4   // timed out, verdict unknown, no leader, not quorate, nobody to ask
	ExitRunFailed   = 125 // run: quorate itself failed
	ExitCannotRun   = 126 // run: CMD cannot be run
	ExitNotFound    = 127 // run: CMD not found
	ExitInterrupted = 130 // a second INT
)

// ErrInterrupted is the cause that the context is cancelled with at an INT or TERM; see [Interrupted].
var ErrInterrupted = errors.New("interrupted")

// Interrupted is [ErrInterrupted] with the signal that it was.
func Interrupted(s syscall.Signal) error { return &interruption{s} }

type interruption struct{ signal syscall.Signal }

func (i *interruption) Error() string {
	name, ok := map[syscall.Signal]string{syscall.SIGHUP: "HUP", syscall.SIGINT: "INT", syscall.SIGQUIT: "QUIT", syscall.SIGTERM: "TERM"}[i.signal]
	if !ok {
		name = i.signal.String()
	}
	return fmt.Sprintf("%v (%s)", ErrInterrupted, name)
}

func (i *interruption) Is(target error) bool { return target == ErrInterrupted }

// signalCode is the exit code for what interrupted a command: 128 + the signal's number.
func signalCode(cause error) int {
	var i *interruption
	if errors.As(cause, &i) {
		return 128 + int(i.signal)
	}
	return ExitInterrupted
}

// An exitError is an error with its exit code. With an empty text it ends the command with that code and prints
// nothing: for codes that are answers (a vote's no, CMD's own).
type exitError struct {
	code int
	text string // what: which group: what to do next; one line
	err  error  // what it came from, if anything: for errors.Is
}

func (e *exitError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.text
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is a mistake in the words or settings: exit code 2.
func usageError(format string, args ...any) error { return newExitError(ExitUsage, format, args...) }

// failure is an error of the given code, built like fmt.Errorf.
func failure(code int, format string, args ...any) error {
	return newExitError(code, format, args...)
}

// silent ends a command with a code and no message.
func silent(code int) error { return &exitError{code: code} }

func newExitError(code int, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &exitError{code: code, text: err.Error(), err: errors.Unwrap(err)}
}

// exitCode is the exit code for what a command returned.
func exitCode(err error) int {
	var coded *exitError
	var name *wire.NameError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &name):
		return ExitUsage // a name that cannot be one: refused before anything was sent
	case errors.Is(err, context.DeadlineExceeded):
		return ExitUnanswered
	}
	return ExitFailed
}

// report prints the one line for err, if it has one, and returns the exit code.
func report(stderr io.Writer, err error) int {
	code := exitCode(err)
	var coded *exitError
	switch {
	case err == nil:
	case errors.As(err, &coded) && coded.text == "":
	case errors.Is(err, syscall.EPIPE):
		// The reader of our output has gone; nobody wants to hear that.
	default:
		// One Write, so that the lines of several processes do not mix.
		io.WriteString(stderr, "quorate: "+oneLine(err.Error())+"\n")
	}
	return code
}

// oneLine makes any text one printable line: what came from a server or a file cannot move the cursor or add lines.
func oneLine(s string) string {
	s = strings.TrimSpace(s)
	var b strings.Builder
	space := false
	for _, r := range s {
		if r == '\n' || r == '\r' || r == '\t' {
			r = ' '
		}
		if !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}
		if r == ' ' && space {
			continue
		}
		space = r == ' '
		b.WriteRune(r)
	}
	return b.String()
}
