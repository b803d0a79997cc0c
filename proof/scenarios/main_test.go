//go:build scenarios && linux

package scenarios

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	rounds   = flag.Int("scenarios.rounds", 1, "how many times each fault happens")
	parallel = flag.Int("scenarios.parallel", 5, "how many worlds there are at a time")
	keep     = flag.String("scenarios.keep", "", "directory in which all that the processes print is kept")
	document = flag.String("scenarios.doc", "", "document whose table is replaced by what was seen, such as ../../docs/proof.md")
)

// The test binary plays several roles: it begins as the one that go test starts, which starts the one that has namespaces of its own,
// which starts servers and workers.
const (
	roleEnv   = "QUORATE_SCENARIOS_ROLE"
	binaryEnv = "QUORATE_SCENARIOS_BINARY" // quorate, built from this tree
	laterEnv  = "QUORATE_SCENARIOS_LATER"  // the same, of a later release: see buildLater
)

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(outside())
	case "inside":
		flag.Parse()
		if err := enter(); err != nil {
			fmt.Fprintln(os.Stderr, "scenarios:", err)
			os.Exit(1)
		}
		go watchTheMachine(func(from, to time.Time) { noteStall("the machine stood still", from, to) })
		code := m.Run()
		if err := matrix.print(); err != nil {
			fmt.Fprintln(os.Stderr, "scenarios:", err)
			code = 1
		}
		os.Exit(code)
	case "server":
		os.Exit(serverMain(os.Args[1]))
	case "worker":
		os.Exit(workerMain())
	case "crowd":
		os.Exit(crowdMain())
	default:
		fmt.Fprintf(os.Stderr, "scenarios: no role %q\n", role)
		os.Exit(2)
	}
}

// outside builds the binary and runs the tests in a network and a mount namespace of their own.
func outside() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "scenarios:", err)
		return 1
	}
	if os.Geteuid() != 0 {
		return fail(errors.New("not root: namespaces, mounts and iptables need it"))
	}
	for name, pkg := range map[string]string{"iptables": "iptables", "ip": "iproute2", "go": "Go"} {
		if _, err := exec.LookPath(name); err != nil {
			return fail(fmt.Errorf("%s is missing: install %s", name, pkg))
		}
	}
	dir, err := os.MkdirTemp("", "quorate-scenarios-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "quorate")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/quorate/quorate/cmd/quorate").CombinedOutput(); err != nil {
		return fail(fmt.Errorf("build quorate: %w: %s", err, out))
	}
	later := filepath.Join(dir, "quorate-later")
	if err := buildLater(dir, later); err != nil {
		return fail(err)
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"=inside", binaryEnv+"="+binary, laterEnv+"="+later)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := spawn(nil, cmd); err != nil {
		return fail(err)
	}
	_ = cmd.Wait() // how it ended is in ProcessState
	return cmd.ProcessState.ExitCode()
}

// enter makes the namespaces that this process was started in usable.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	return ip(nil, "link set lo up")
}

func TestScenarios(t *testing.T) {
	places := make(chan struct{}, max(*parallel, 1))
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			for i, s := range scenarios {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					k := k
					if s.lease != 0 {
						k.lease = s.lease
					}
					r := matrix.add(s.name, k, i)
					if why := s.not[k.name]; why != "" {
						r.fault, r.result = why, "n/a"
						return
					}
					places <- struct{}{}
					defer func() { <-places }()
					play(t, s, k, r)
				})
			}
		})
	}
}
