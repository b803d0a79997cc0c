package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
)

func sendCommand() *command {
	return &command{
		name:    "send",
		section: sectionAct,
		summary: "send a message to the members of a group",
		about: "Sends TEXT to all members of a group, to its leader or to one member. `quorate join` prints it; with --on-message its command gets it.\n\n" +
			"With --ask it waits until each one has answered, and prints the answers and who is missing. What a member answers its program decides " +
			"(`join`: what the command of --on-message prints; nothing without one). A message is sent once: it can be lost.",
		args: []argSpec{{name: "GROUP"}, {name: "TEXT"}},
		flags: []flagSpec{
			{name: "to", value: "WHOM", def: "all", usage: "all, leader, or the id of a member"},
			{name: "topic", value: "NAME", def: wire.DefaultTopic, usage: "topic: members handle each by itself"},
			{name: "ask", kind: kindBool, usage: "wait for answers, and print them"},
		},
		needs: needClient,
		json:  []shape{{of: gatheredLine{}, when: "--ask"}},
		examples: []example{
			{"quorate send workers 'reload'", "to all members"},
			{"quorate send workers status --to leader --topic admin --ask", "ask the leader"},
			{"quorate send workers status --ask -j", "ask all; the answers as JSON, with the fields replies (member, data, error, rtt_ms) and missing"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: no such group, a member answered with an error"},
			{ExitUnanswered, "nobody to ask or send to, no leader, or somebody is missing after --timeout"}},
		run: runSend,
	}
}

// replyLine is an answer as `send --ask -o json` shows it (design section 7).
type replyLine struct {
	Member     string  `json:"member" doc:"who answered"`
	Data       *string `json:"data,omitempty" doc:"its answer; left out if that is not UTF-8"`
	DataBase64 *string `json:"data_base64,omitempty" doc:"its answer, if that is not UTF-8"`
	Error      string  `json:"error,omitempty" doc:"its error, if it answered with one"`
	RTTMS      int64   `json:"rtt_ms" doc:"how long it took"`
}

// gatheredLine is what `send --ask -o json` shows.
type gatheredLine struct {
	Replies []replyLine `json:"replies" doc:"the answers"`
	Missing []string    `json:"missing" doc:"who is in the group, and did not answer"`
}

func runSend(ctx context.Context, c *call) error {
	text, topic := c.arg(1), c.str("topic")
	to := coord.ToAll
	switch who := c.str("to"); who {
	case "all":
	case "leader":
		to = coord.ToLeader
	default:
		if err := wire.CheckID(who); err != nil {
			return err
		}
		to = coord.ToMember(who)
	}
	if err := wire.CheckTopic(topic); err != nil {
		return err
	}
	if len(text) > wire.MaxData {
		return usageError("TEXT is %d bytes long, at most %d are allowed", len(text), wire.MaxData)
	}
	return c.inGroup(ctx, func(ctx context.Context, cl *coord.Client, _ coord.Roster) error {
		var g coord.Gathered
		var err error
		switch {
		case !c.bool("ask"):
			err = cl.Send(ctx, to, topic, []byte(text))
		case to == coord.ToAll:
			// Some of --timeout is left, so that what has come is shown though others are missing.
			most, cancel := context.WithTimeout(ctx, c.g.timeout*9/10)
			defer cancel()
			g, err = cl.Gather(most, topic, []byte(text))
		default:
			var r coord.Reply
			r, err = cl.Ask(ctx, to, topic, []byte(text))
			var remote *coord.RemoteError
			if errors.As(err, &remote) {
				r, err = coord.Reply{From: remote.Member, Err: remote}, nil
			}
			g.Replies = []coord.Reply{r}
		}
		switch {
		case errors.Is(err, coord.ErrNoMember) && to == coord.ToAll:
			return failure(ExitUnanswered, "send: nobody in group %q listens: 'quorate members %s' shows who is there", cl.Name(), cl.Name())
		case errors.Is(err, coord.ErrNoMember):
			return failure(ExitUnanswered, "send: no member %q in group %q: 'quorate members %s' shows who is there", c.str("to"), cl.Name(), cl.Name())
		case errors.Is(err, coord.ErrNoLeader):
			return failure(ExitUnanswered, "send: group %q has no leader now: 'quorate members %s' shows who is there", cl.Name(), cl.Name())
		case errors.Is(err, coord.ErrNoHandler):
			return failure(ExitFailed, "send: nobody handles topic %q there", topic)
		case err != nil:
			return c.failed(ctx, err)
		case !c.bool("ask"):
			return nil
		}
		return c.printGathered(g)
	})
}

func (c *call) printGathered(g coord.Gathered) error {
	lines := make([]replyLine, 0, len(g.Replies))
	failed := 0
	t := newTable("MEMBER", "RTT", "ANSWER")
	t.right, t.shrink = []int{1}, 2
	for _, r := range g.Replies {
		l := replyLine{Member: r.From, RTTMS: wire.ToMS(r.RTT)}
		answer := string(r.Data)
		switch {
		case r.Err != nil:
			failed++
			var remote *coord.RemoteError
			if l.Error = r.Err.Error(); errors.As(r.Err, &remote) {
				l.Error = remote.Text
			}
			answer = "error: " + l.Error
		case !utf8.Valid(r.Data):
			coded := base64.StdEncoding.EncodeToString(r.Data)
			l.DataBase64, answer = &coded, "base64 "+coded
		}
		if l.DataBase64 == nil {
			data := string(r.Data)
			l.Data = &data
		}
		lines = append(lines, l)
		rtt := "-" // an error of a single member comes without one
		if r.RTT > 0 {
			rtt = r.RTT.Round(time.Microsecond).String()
		}
		t.add(l.Member, rtt, answer)
	}
	var err error
	if c.g.json {
		err = c.printJSON(gatheredLine{lines, append([]string{}, g.Missing...)})
	} else if len(lines) > 0 {
		err = c.printTable(t)
	}
	switch {
	case err != nil:
		return err
	case len(g.Missing) > 0:
		return failure(ExitUnanswered, "send: no answer from %s", strings.Join(g.Missing, ", "))
	case failed > 0:
		return failure(ExitFailed, "send: %s answered with an error", count(failed, "member"))
	}
	return nil
}

// messages tells of what is sent to this member, and has the command of --on-message answer it.
func (m *member) messages() error {
	on := m.c.str("on-message")
	_, err := m.g.Handle(coord.AnyTopic, func(ctx context.Context, msg coord.Message) ([]byte, error) {
		e := newMessage(msg.From, msg.To, msg.Topic, msg.Data)
		m.j.emit(e)
		if on == "" || e.top().V == 0 { // the last line is out
			return nil, nil
		}
		line, err := jsonLine(e)
		if err != nil {
			return nil, err
		}
		out, err := m.hook(ctx, on, line)
		if err != nil {
			m.c.note("join: --on-message: %s", err)
			return nil, fmt.Errorf("--on-message: %w", err)
		}
		return out, nil
	})
	return err // its end is the membership's
}
