package guardian

import (
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/guardian/deadline"
)

// Errors of [Result].
var (
	ErrNotFound    = errors.New("not found")
	ErrCannotRun   = errors.New("cannot be run")
	ErrUnsupported = errors.New("commands cannot be guarded on this system")
	// ErrGuardian says that the guardian ended before the command: it was killed. The command was killed then, with all that it had started.
	ErrGuardian = errors.New("the guardian was killed")
)

// word is the first of those that a guardian is started with, markEnv the variable by which it knows that it is one, and by which the
// processes of one command know each other.
const (
	word    = "guardian-of-run"
	markEnv = "QUORATE_RUN"
	pipeEnv = "QUORATE_GUARDIAN"
)

// Called tells whether a process was started to be a guardian: words and environment are its own.
func Called(words []string, env map[string]string) bool {
	return len(words) > 0 && words[0] == word && env[pipeEnv] != ""
}

// Config of a guarded command.
type Config struct {
	Path   string   // of its program file
	Args   []string // with its own name first
	Env    []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer // remarks of the guardian go there too, a line each

	Name  string        // what the right is of, for remarks and for who looks at the processes
	Lease time.Duration // of the right: KILL lease/50 before the deadline
	Term  time.Duration // TERM so long before the deadline: renewals fail
	Grace time.Duration // from TERM to KILL

	// Left is how long the right holds without another renewal; 0 or less: it is over. It is asked every lease/24.
	Left func() time.Duration
	// Lost ends when the right does, for whatever reason.
	Lost <-chan struct{}
}

// A Result is how a command ended.
type Result struct {
	Started bool         // it ran
	Code    int          // its exit code as a shell tells it: 128+n for a signal
	Why     deadline.Why // what ended it
	Err     error        // ErrNotFound, ErrCannotRun, ErrGuardian, or that the guardian could not be started
}

// An order is what the guardian is told: one of these, as a line of JSON.
type order struct {
	Run      *runOrder      `json:"run,omitempty"` // the first, once
	Deadline *clock.Instant `json:"deadline,omitempty"`
	End      bool           `json:"end,omitempty"`
	Lost     bool           `json:"lost,omitempty"`
	Signal   syscall.Signal `json:"signal,omitempty"` // for the command's own process
}

// A runOrder is what to run. Words and variables are bytes: they need not be text.
type runOrder struct {
	Path     []byte          `json:"path"`
	Args     [][]byte        `json:"args"`
	Env      [][]byte        `json:"env"`
	Rules    deadline.Config `json:"rules"`
	Deadline clock.Instant   `json:"deadline"`
	Name     string          `json:"name"`
}

// A report is what the guardian tells: one of these, as a line of JSON. When the reports end the guardian has.
type report struct {
	Started int           `json:"started,omitempty"` // the command's process, which is also its group
	Failed  string        `json:"failed,omitempty"`  // it could not be started
	Missing bool          `json:"missing,omitempty"` // as it is not there
	Ending  *deadline.Why `json:"ending,omitempty"`  // it is told to end, or has ended
	Exited  *int          `json:"exited,omitempty"`  // exit code of its own process
	Gone    bool          `json:"gone,omitempty"`    // nothing of it is left: the last report
}

func toBytes(l []string) [][]byte {
	out := make([][]byte, len(l))
	for i, s := range l {
		out[i] = []byte(s)
	}
	return out
}

func fromBytes(l [][]byte) []string {
	out := make([]string, len(l))
	for i, b := range l {
		out[i] = string(b)
	}
	return out
}
