//go:build unix

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/eventcheck"
)

func awaitFile(t *testing.T, path string) string {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		if b, err := os.ReadFile(path); err == nil && strings.HasSuffix(string(b), "\n") {
			return string(b)
		}
		if time.Now().After(end) {
			t.Fatalf("%s was not written", path)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Shell scripts vote: by their exit code, with a reason; what is still at it when the ballot is over is killed, with all that it has started.
func TestOnBallot(t *testing.T) {
	t.Parallel()
	env, dir := natsEnv(t), t.TempDir()
	b := start(t, env, nil, "join", "g", "--id", "b", "--on-ballot", `cat > `+dir+`/line
		case "$QUORATE_TOPIC" in
		yes) echo because ;;
		no) echo "not now, $QUORATE_MEMBER"; echo more; exit 1 ;;
		slow*) sleep 1000 & echo $! > `+dir+`/pid; wait ;;
		*) exit 7 ;;
		esac`)
	b.await(b.out, "joined")
	awaitVoters(t, env, "g", 1)
	wantLike(t, "yes", runIn(t, env, "vote", "g", "yes"), 0, `yes: 1 yes, 0 no, 0 abstain of 1 \(majority\)\n`)
	var line map[string]any
	if err := json.Unmarshal([]byte(awaitFile(t, dir+"/line")), &line); err != nil || line["type"] != "ballot" || line["topic"] != "yes" || line["self"] != "b" {
		t.Errorf("the hook was told %v, %v", line, err)
	}
	wantLike(t, "no", runIn(t, env, "vote", "g", "no"), ExitNo, `no: 0 yes, 1 no, 0 abstain of 1 \(majority\)\n  b: not now, b\n`)
	wantLike(t, "abstain", runIn(t, env, "vote", "g", "else"), ExitNo, `no: 0 yes, 0 no, 1 abstain of 1 \(majority\)\n`)
	b.await(b.errs, "exit status 7: abstaining")
	begun := func(string, result) bool { _, err := os.Stat(dir + "/pid"); return err == nil }
	timesOut(t, env, begun, "slow in ", `\{.*"verdict":"timed-out","yes":0,"no":0,"abstain":0,"of":1,"silent":\["b"\],.*\}\n`)
	pid, err := strconv.Atoi(strings.TrimSpace(awaitFile(t, dir+"/pid")))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); gone(pid) != nil; {
		if time.Now().After(end) {
			t.Fatalf("what the hook has started goes on: process %d", pid)
		}
		<-time.After(5 * time.Millisecond)
	}

	r := runIn(t, env, "votes", "g", "-j")
	var votes []struct{ Group, Ballot, Topic, Kind, Verdict string }
	if err := json.Unmarshal([]byte(r.stdout), &votes); err != nil || r.code != 0 {
		t.Fatalf("votes: %+v, %v", r, err)
	}
	var got []string
	for _, v := range votes {
		got = append(got, v.Topic+":"+v.Verdict)
		if v.Group != "g" || v.Kind != "majority" || v.Ballot == "" {
			t.Errorf("votes: %+v", v)
		}
	}
	if text := strings.Join(got, ", "); !regexp.MustCompile(`^yes:yes, no:no, else:no(, slow in \d+s:timed-out)+$`).MatchString(text) {
		t.Errorf("votes: %s", text)
	}
	wantLike(t, "votes", runIn(t, env, "votes", "g"), 0, fmt.Sprintf(`DECIDED +BALLOT +VERDICT +YES +NO +ABSTAIN +OF +KIND +TOPIC\n(.*\n){%d}`, len(votes)))
	checkLine(t, runIn(t, env, "votes", "nope"), ExitFailed, `no such group "nope"`)
	b.stop()
}

// gone is an error while the process is there; a child that nobody has waited for yet is not.
func gone(pid int) error {
	if syscall.Kill(pid, 0) != nil {
		return nil
	}
	if b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")); err == nil && strings.Contains(string(b), ") Z ") {
		return nil
	}
	return os.ErrExist
}

func TestNoVotes(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	a := start(t, env, nil, "join", "g", "--id", "a")
	a.await(a.out, "leader-elected")
	wantLike(t, "votes", runIn(t, env, "votes", "g", "-j"), 0, `\[\]\n`)
	wantLike(t, "votes", runIn(t, env, "votes", "g"), 0, "no votes\n")
	a.stop()
}

// Shell scripts act together; how that went is told to who proposed it, and in the lines of all members.
func TestOnAction(t *testing.T) {
	t.Parallel()
	env, dir := natsEnv(t), t.TempDir()
	a := start(t, env, nil, "join", "g", "--id", "a", "--vote", "yes", "-o", "json")
	b := start(t, env, nil, "join", "g", "--id", "b", "--on-ballot", "true", "--on-action", `cat > `+dir+`/line; echo $QUORATE_BALLOT > `+dir+`/ballot`)
	c := start(t, env, nil, "join", "g", "--id", "c", "--vote", "yes", "--on-action", "echo no space; exit 3")
	d := start(t, env, nil, "join", "g", "--id", "d", "--vote", "yes", "--on-action", `echo begun > `+dir+`/begun; sleep 1000`)
	awaitVoters(t, env, "g", 4)
	// Nobody is late by less than a minute: this machine may be busy.
	v := start(t, env, nil, "vote", "g", "open", "--kind", "consensus", "--at", "+8s", "--tolerance", "1m", "--timeout", "60s", "-j")
	awaitFile(t, dir+"/begun")
	d.stop() // what it is at is killed, and both are told
	d.await(d.out, "d: failed, ballot ")
	if out := d.out.String(); strings.Index(out, "d: failed, ballot ") > strings.Index(out, "d: left") {
		t.Errorf("its own part comes after its last line: %s", out)
	}
	<-v.done
	r := result{code: v.code, stdout: v.out.String()}
	wantLike(t, "action", r, 0, `\{"group":"g","ballot":"[A-Za-z0-9]+","topic":"open","kind":"consensus","verdict":"yes","yes":4,.*,"at":`+aTime+`,"tolerance_ms":60000,`+
		`"agreed":\["a","b","c","d"\],"outcome":\[\{"member":"a","status":"done","bound_ms":\d+\},\{"member":"b","status":"done","bound_ms":\d+\},`+
		`\{"member":"c","status":"failed","bound_ms":\d+,"text":"no space"\},\{"member":"d","status":"failed","bound_ms":\d+,"text":"left the group"\}\]\}\n`)
	var line struct{ Type, Ballot, Member, Topic, At string }
	if err := json.Unmarshal([]byte(awaitFile(t, dir+"/line")), &line); err != nil || line.Type != "action" || line.Member != "b" || line.Topic != "open" || line.At == "" {
		t.Errorf("the hook was told %+v, %v", line, err)
	}
	if got := strings.TrimSpace(awaitFile(t, dir+"/ballot")); got != line.Ballot || !strings.Contains(r.stdout, `"`+got+`"`) {
		t.Errorf("QUORATE_BALLOT %q, in the line %q", got, line.Ballot)
	}
	a.await(a.out, `"member":"a","status":"done"`)
	a.await(a.out, `"member":"b","status":"done"`)
	a.await(a.out, `"member":"c","status":"failed"`)
	c.await(c.errs, "--on-action: echo no space; exit 3: exit status 3")

	// Cancelled: by then it is not to begin for minutes.
	p := start(t, env, nil, "vote", "g", "later", "--kind", "consensus", "--at", "+5m", "--timeout", "60s")
	p.await(p.errs, "agreed, at ")
	id := regexp.MustCompile(`ballot (\w+): agreed`).FindStringSubmatch(p.errs.String())[1]
	wantLike(t, "cancel", runIn(t, env, "vote", "g", "--cancel", id, "--timeout", "60s"), 0, `yes: 3 yes, .*\n  a: cancelled\n  b: cancelled\n  c: cancelled\n`)
	<-p.done
	if p.code != 0 || !strings.Contains(p.out.String(), "  a: cancelled\n") {
		t.Errorf("exit code %d: %s", p.code, p.out)
	}
	b.await(b.out, "c: cancelled, ballot "+id)
	checkLine(t, runIn(t, env, "vote", "g", "--cancel", "nothing"), ExitFailed, `group "g" has no ballot nothing that could be cancelled`)
	for _, m := range []*running{c, b, a} {
		m.stop()
	}
}

// proposeAt proposes an action to a scene, and returns when all of them have printed the yes, which all have said, and at least half of the lead is left until the
// instant. A busy machine takes longer to agree, or misses heartbeats of a member: then it is proposed again with twice the lead.
func (s *scene) proposeAt(env []string, topic string, tolerance func(lead time.Duration) time.Duration) (p *running, ballot string, at time.Time, lead time.Duration) {
	s.t.Helper()
	there := 0
	for _, m := range s.all {
		if m.killed.IsZero() {
			there++
		}
	}
	for lead = 3 * time.Second; lead < 2*patience; lead *= 2 {
		topic := fmt.Sprint(topic, " in ", lead)
		wait := 2*lead + min(tolerance(lead), lead) + 2*time.Second // till the instant, beyond the tolerance, and for the reports
		began := time.Now()
		p = start(s.t, env, nil, "vote", "g", topic, "--kind", "consensus", "-j", "--at", "+"+lead.String(), "--tolerance", tolerance(lead).String(), "--timeout", wait.String())
		go func() {
			<-p.done // nobody hears of a verdict that there is not
			s.mu.Lock()
			s.poke()
			s.mu.Unlock()
		}()
		yes := true
		s.await("all have heard the verdict on "+topic, func() bool {
			for _, m := range s.all {
				i := slices.IndexFunc(m.lines, func(l eventcheck.Line) bool { return l.Type == evVerdict && l.Topic == topic })
				switch {
				case i >= 0:
					ballot, at, yes = m.lines[i].Ballot, m.lines[i].At, yes && m.lines[i].Verdict == "yes" && m.lines[i].Yes == there
				case m.killed.IsZero():
					return p.over()
				}
			}
			return true
		})
		if yes && !p.over() && time.Since(began) < lead/2 {
			return p, ballot, at, lead
		}
		<-p.done
	}
	s.t.Fatalf("%s: not agreed, nor half as soon as it is to be done", topic)
	return
}

// part is what a process has told of its own part in an action. With the lock held.
func (p *process) part(ballot string) string {
	for _, l := range p.lines {
		if l.Type == evAction && l.Ballot == ballot && l.Member == p.id {
			return l.Status
		}
	}
	return ""
}

// A1 with processes: the leader is killed between the verdict and the instant, one is stopped over the instant, one is killed and started again.
func TestActionProcesses(t *testing.T) {
	t.Parallel()
	env := natsEnv(t)
	s := newScene(t)
	s.env, s.lease = env, longScene // held while the machine stands still: who is a member takes part
	a := s.join("a", "--vote", "yes")
	s.await("a leads", func() bool {
		return slices.ContainsFunc(a.lines, func(l eventcheck.Line) bool { return l.Type == evLeaderElected })
	})
	b, c, d := s.join("b", "--vote", "yes"), s.join("c", "--vote", "yes"), s.join("d", "--vote", "yes")
	awaitVoters(t, env, "g", 4)

	p, ballot, _, _ := s.proposeAt(env, "leader killed", func(time.Duration) time.Duration { return time.Minute })
	a.kill()
	s.await("the others have acted", func() bool { return b.part(ballot) == "done" && c.part(ballot) == "done" && d.part(ballot) == "done" })
	<-p.done
	wantLike(t, "outcome", result{code: p.code, stdout: p.out.String()}, 0,
		`.*"outcome":\[\{"member":"a","status":"unheard"\},\{"member":"b","status":"done",.*\{"member":"c","status":"done",.*\{"member":"d","status":"done",.*\n`)
	awaitVoters(t, env, "g", 3)

	p, ballot, at, lead := s.proposeAt(env, "stopped and restarted", func(lead time.Duration) time.Duration { return lead / 3 })
	b.signal(syscall.SIGSTOP)
	c.kill()
	again := s.join("c", "--vote", "yes")
	timer := time.NewTimer(time.Until(at.Add(lead/3 + time.Second)))
	defer timer.Stop()
	<-timer.C
	b.signal(syscall.SIGCONT)
	s.await("b is late", func() bool { return b.part(ballot) != "" })
	<-p.done
	s.mu.Lock()
	if got := b.part(ballot); got != "late" {
		t.Errorf("A1: b was stopped over the instant, and is %s", got)
	}
	if got := again.part(ballot); got != "" {
		t.Errorf("A1: c was started again after its yes, and is %s", got)
	}
	s.mu.Unlock()
	wantLike(t, "outcome", result{code: p.code, stdout: p.out.String()}, 0,
		`.*"outcome":\[\{"member":"b","status":"late",.*\{"member":"c","status":"unheard"\},\{"member":"d","status":"(done|late)",.*\n`)
	s.await("c is a member again", func() bool {
		return slices.ContainsFunc(again.lines, func(l eventcheck.Line) bool { return l.Type == evJoined })
	})
	for _, m := range []*process{b, d, again} {
		m.leave()
	}
	s.prove()
}
