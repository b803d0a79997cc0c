//go:build scenarios && linux

package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What a later release may do to records and messages is add fields ("later versions only add"). So that is what this one does, to all of them.
const laterField = `"later":{"than":["this"],"n":1},`

// buildLater builds quorate as of a later release: with a field that this one does not know in every record and message.
func buildLater(dir, binary string) error {
	source, err := filepath.Abs("../../internal/wire/records.go")
	if err != nil {
		return err
	}
	b, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	const encode, end = "func Encode(v any) []byte {", "\treturn b\n}"
	before, after, ok := strings.Cut(string(b), encode)
	body, rest, ended := strings.Cut(after, end)
	if !ok || !ended {
		return errors.New("build a later release: wire.Encode is not what it was: mend buildLater")
	}
	changed := before + encode + body + "\treturn append([]byte(`{" + laterField + "`), b[1:]...)\n}" + rest
	file, overlay := filepath.Join(dir, "records.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {source: file}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		return err
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", binary, "github.com/quorate/quorate/cmd/quorate").CombinedOutput(); err != nil {
		return fmt.Errorf("build a later release: %w: %s", err, out)
	}
	return nil
}

// upgrade has members of two releases in one group: one after the other is ended and started as the other release, so that each kind leads
// members of the other, and then all the way back.
func upgrade(w *world) string {
	led := map[bool]int{} // how often who leads was of the later release while others were not, and the other way round
	changes := 0
	// All the way and back; once more if a busy machine has cost a leader its term at the wrong moment.
	for round := 0; round < 2 || round < 6 && (round%2 != 0 || led[true] == 0 || led[false] == 0); round++ {
		later := round%2 == 0
		// Not the leader first: it leads one of the other release by then.
		lead := w.victims()[0]
		order := slices.DeleteFunc(slices.Clone(w.members), func(p *process) bool { return p == lead })
		for _, next := range slices.Insert(order, 1, lead) {
			end(next)
			changes++
			next.later = later
			w.must(next.start())
			w.awaitWell("after " + next.name + " was changed")
			if n := w.count(later); n != 0 && n != len(w.members) {
				led[w.victims()[0].later]++
			}
			if later != w.recorded(next.name) {
				w.t.Errorf("the record of %s: by a later release %v, want %v", next.name, !later, later)
			}
		}
	}
	if led[true] == 0 || led[false] == 0 {
		w.t.Errorf("each release is to lead members of the other: %v", led)
	}
	return fmt.Sprintf("%d changes, both ways; a later release led others %d times, this one %d times", changes, led[true], led[false])
}

// count is how many members are of that release.
func (w *world) count(later bool) (n int) {
	for _, p := range w.members {
		if p.later == later {
			n++
		}
	}
	return n
}

// recorded reports whether a member's record was written by a later release.
func (w *world) recorded(id string) bool {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := w.js.Stream(ctx, stream)
	w.must(err)
	m, err := s.GetLastMsgForSubject(ctx, "$KV.QUORATE_default.member."+group+"."+id)
	w.must(err)
	return bytes.Contains(m.Data, []byte(laterField[:len(laterField)-1]))
}
