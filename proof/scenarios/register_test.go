//go:build scenarios && linux

package scenarios

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A register is what the workers guard: it remembers the highest token that it has seen and refuses lower ones (R1). Workers reach it over
// a unix socket, so also while NATS is cut off from them: that is the case that fencing is for.
type register struct {
	path string
	l    net.Listener
	wg   sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	token  uint64
	writes []write
}

// A write is one that was asked for, in the order in which the register saw them.
type write struct {
	Worker string `json:"worker"`
	Token  uint64 `json:"token"`
	Late   bool   `json:"late"` // by a worker that knows that its term is over
	at     time.Time
	ok     bool
}

func newRegister(dir string) (*register, error) {
	r := &register{path: filepath.Join(dir, "register"), conns: map[net.Conn]bool{}}
	var err error
	if r.l, err = net.Listen("unix", r.path); err != nil {
		return nil, err
	}
	r.wg.Go(func() {
		for {
			c, err := r.l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[c] = true
			r.mu.Unlock()
			r.wg.Go(func() { r.serve(c) })
		}
	})
	return r, nil
}

func (r *register) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewScanner(c)
	for in.Scan() {
		var w write
		if json.Unmarshal(in.Bytes(), &w) != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "%t\n", r.take(w)); err != nil {
			return
		}
	}
}

func (r *register) take(w write) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.at = time.Now()
	w.ok = w.Token >= r.token
	r.token = max(r.token, w.Token)
	r.writes = append(r.writes, w)
	return w.ok
}

func (r *register) close() {
	r.l.Close()
	r.mu.Lock()
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// refused is how many writes were refused; those of one worker, or of all ("").
func (r *register) refused(worker string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.writes {
		if !w.ok && (worker == "" || w.Worker == worker) {
			n++
		}
	}
	return n
}

// written is whether the register has taken a write with the token.
func (r *register) written(token uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.writes) - 1; i >= 0; i-- {
		if w := r.writes[i]; w.ok && w.Token == token {
			return true
		}
	}
	return false
}

// audit checks the register by its own log: accepted tokens never go down, and each is of one worker alone.
func audit(writes []write) (wrong []string) {
	var highest uint64
	of := map[uint64]string{}
	for _, w := range writes {
		if o, ok := of[w.Token]; ok && o != w.Worker {
			wrong = append(wrong, fmt.Sprintf("L2: token %d of %s and of %s", w.Token, o, w.Worker))
		}
		of[w.Token] = w.Worker
		if !w.ok {
			continue
		}
		if w.Token < highest {
			wrong = append(wrong, fmt.Sprintf("register: token %d of %s accepted after %d", w.Token, w.Worker, highest))
		}
		highest = max(highest, w.Token)
	}
	return wrong
}

// The register refuses what it must, and its audit sees what a register without a fence does.
func TestRegister(t *testing.T) {
	r, err := newRegister(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for _, w := range []struct {
		worker string
		token  uint64
		want   bool
	}{{"a", 1, true}, {"a", 1, true}, {"b", 2, true}, {"a", 1, false}, {"b", 2, true}, {"a", 3, true}, {"b", 2, false}} {
		if got := r.take(write{Worker: w.worker, Token: w.token}); got != w.want {
			t.Errorf("token %d of %s: accepted %t, want %t", w.token, w.worker, got, w.want)
		}
	}
	if wrong := audit(r.writes); len(wrong) > 0 {
		t.Error(wrong)
	}
	r.writes[3].ok = true
	if len(audit(r.writes)) != 1 {
		t.Error("an older token was accepted, and the audit did not see it")
	}
	if len(audit([]write{{Worker: "a", Token: 1, ok: true}, {Worker: "b", Token: 1, ok: true}})) != 1 {
		t.Error("two workers had one token, and the audit did not see it")
	}
}
