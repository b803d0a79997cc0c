//go:build scenarios && linux

package scenarios

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// onThread runs functions on one thread that lives as long as the process. What has to be so: a thread has a network namespace of its
// own, which it gives to the processes that it starts, and these die with the thread (Pdeathsig).
var onThread = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for fn := range work {
			fn()
		}
	}()
	return work
})

// A network is a network namespace. It has no name: it ends with the last process in it, and with ours.
type network struct {
	file *os.File
	addr string // in its world
}

const threadNet = "/proc/thread-self/ns/net"

// within calls fn on the thread, in the namespace; nil is the one of this process.
func within(n *network, fn func() error) (err error) {
	done := make(chan struct{})
	onThread() <- func() {
		defer close(done)
		if n == nil {
			err = fn()
			return
		}
		home, herr := os.Open(threadNet)
		if herr != nil {
			err = herr
			return
		}
		defer home.Close()
		if err = unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		err = fn()
		if herr := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); herr != nil {
			panic(herr) // nothing could be right after this
		}
	}
	<-done
	return err
}

// newNetwork makes a namespace with nothing in it.
func newNetwork() (*network, error) {
	n := &network{}
	err := within(nil, func() error {
		home, err := os.Open(threadNet)
		if err != nil {
			return err
		}
		defer home.Close()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		n.file, err = os.Open(threadNet)
		if herr := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); herr != nil {
			panic(herr)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return n, nil
}

// spawn starts a process in the namespace, which dies when this one does.
func spawn(n *network, cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return within(n, cmd.Start)
}

// output runs a command in the namespace.
func output(n *network, input string, words ...string) (string, error) {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(input)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := spawn(n, cmd); err != nil {
		return "", fmt.Errorf("%s: %w", words[0], err)
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, out.String())
	}
	return out.String(), nil
}

// ip runs lines of the ip command.
func ip(n *network, lines ...string) error {
	_, err := output(n, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
	return err
}

// A hub is the bridge that a world's namespaces are connected to. It stands in the namespace of this process, which can so reach
// all of them.
type hub struct {
	world int
	nodes int
}

func newHub(world int) (*hub, error) {
	h := &hub{world: world}
	br := fmt.Sprintf("br%d", world)
	return h, ip(nil, "link add "+br+" type bridge", fmt.Sprintf("addr add %s/24 dev %s", h.addr(), br), "link set "+br+" up")
}

// addr is the address of this process in the world.
func (h *hub) addr() string { return fmt.Sprintf("10.77.%d.1", h.world) }

// connect makes a namespace that is connected to the hub.
func (h *hub) connect() (*network, error) {
	n, err := newNetwork()
	if err != nil {
		return nil, err
	}
	h.nodes++
	n.addr = fmt.Sprintf("10.77.%d.%d", h.world, h.nodes+1)
	here := fmt.Sprintf("w%dn%d", h.world, h.nodes)
	if err := ip(nil, fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d", here, os.Getpid(), n.file.Fd()),
		fmt.Sprintf("link set %s master br%d up", here, h.world)); err != nil {
		return nil, err
	}
	return n, ip(n, fmt.Sprintf("addr add %s/24 dev eth0", n.addr), "link set eth0 up", "link set lo up")
}

func (h *hub) close() error { return ip(nil, fmt.Sprintf("link del br%d", h.world)) }

// A rule drops packets silently in the namespace of one process.
type rule struct {
	n     *network
	words []string // chain first
}

// drop adds a rule: its chain is INPUT or OUTPUT, match narrows it down.
func drop(t *testing.T, n *network, chain string, match ...string) *rule {
	t.Helper()
	device := map[string]string{"INPUT": "-i", "OUTPUT": "-o"}[chain]
	r := &rule{n: n, words: append([]string{chain, device, "eth0"}, append(match, "-j", "DROP")...)}
	if _, err := output(n, "", append([]string{"iptables", "-w", "-A"}, r.words...)...); err != nil {
		t.Fatal(err)
	}
	return r
}

// packets is how many packets the rules of its chain have dropped so far.
func (r *rule) packets(t *testing.T) (n int) {
	t.Helper()
	out, err := output(r.n, "", "iptables", "-w", "-nvxL", r.words[0])
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "DROP" {
			p, err := strconv.Atoi(f[0])
			if err != nil {
				t.Fatalf("iptables: %q: %v", line, err)
			}
			n += p
		}
	}
	return n
}

func (r *rule) remove(t *testing.T) {
	t.Helper()
	if _, err := output(r.n, "", append([]string{"iptables", "-w", "-D"}, r.words...)...); err != nil {
		t.Fatal(err)
	}
}
