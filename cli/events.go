package cli

import (
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/quorate/quorate/internal/wire"
)

// Event types (design section 7).
const (
	evJoined        = "joined"
	evLeft          = "left"
	evDisconnected  = "disconnected"
	evReconnected   = "reconnected"
	evMemberJoined  = "member-joined"
	evMemberLeft    = "member-left"
	evLeaderElected = "leader-elected"
	evLeaderLost    = "leader-lost"
	evSettling      = "settling"
	evSettled       = "settled"
	evAssigned      = "assigned"
	evRevoked       = "revoked"
	evMessage       = "message"
	evBallot        = "ballot"
	evVerdict       = "verdict"
	evAction        = "action"
)

// head is what every event line begins with, in this order. The writer fills it in.
type head struct {
	V        int    `json:"v"`
	Time     string `json:"time"`
	Type     string `json:"type"`
	Group    string `json:"group,omitempty"`    // or Election, one of the two
	Election string `json:"election,omitempty"` //
	Self     string `json:"self"`               // who printed it; "" for a client
}

func (h *head) top() *head { return h }

// whose names a member, unless it is the one who prints: lines should fit.
func (h *head) whose(member string) string {
	if member == h.Self {
		return ""
	}
	return member + ": "
}

// An event is one line of `join`, `watch` and the hooks. The fields of each type are those of design section 7, in that
// order. Later versions only add fields and types.
type event interface {
	top() *head
	kind() string // its type
	text() string // what stands behind time and type in a table
}

type joinedEvent struct {
	head
	Member      string `json:"member"`
	Incarnation uint64 `json:"incarnation"`
}

type leftEvent struct {
	head
	Member string `json:"member"`
	Reason string `json:"reason"` // left, evicted, id-in-use, failed
}

type disconnectedEvent struct{ head }

type reconnectedEvent struct{ head }

type memberJoinedEvent struct {
	head
	Member string            `json:"member"`
	Meta   map[string]string `json:"meta"`
}

type memberLeftEvent struct {
	head
	Member string `json:"member"`
	Reason string `json:"reason"` // left, evicted, expired
}

type leaderElectedEvent struct {
	head
	Leader  string `json:"leader"`
	Token   uint64 `json:"token"`
	LeaseMS int64  `json:"lease_ms,omitempty"` // one's own: what it is held for without a further renewal
}

type leaderLostEvent struct {
	head
	Leader string `json:"leader"`
	Token  uint64 `json:"token"`
	Reason string `json:"reason"`          // resigned, stepped-down, expired, lost, not-quorate, evicted, bucket-lost
	Until  string `json:"until,omitempty"` // one's own: when the hold ended; see releasedNow

	releasedNow bool // Until is the line's time
}

type settlingEvent struct {
	head
	Generation uint64 `json:"generation"`
}

type settledEvent struct {
	head
	Generation uint64 `json:"generation"`
	Total      int    `json:"total"`
}

type assignedEvent struct {
	head
	Member     string   `json:"member"`
	Index      int      `json:"index"` // from 0
	Total      int      `json:"total"`
	Generation uint64   `json:"generation"`
	LeaseMS    int64    `json:"lease_ms"`     // what it is held for without a further reply
	Of         int      `json:"of,omitempty"` // with buckets: how many there are
	Buckets    *[]int   `json:"buckets,omitempty"`
	Tokens     []uint64 `json:"tokens,omitempty"` // of the buckets, in their order
	Items      []string `json:"items,omitempty"`
}

type revokedEvent struct {
	head
	Member     string `json:"member"`
	Generation uint64 `json:"generation"`
	Reason     string `json:"reason"`            // settling, left, evicted, expired, lost, not-quorate, bucket-lost
	Until      string `json:"until"`             // when the hold ended; left empty: the line's time
	Buckets    *[]int `json:"buckets,omitempty"` // only these buckets are revoked, and the index; the other buckets are held on
}

type messageEvent struct {
	head
	From       string  `json:"from"`
	To         string  `json:"to"`
	Topic      string  `json:"topic"`
	Data       *string `json:"data,omitempty"`        // text
	DataBase64 *string `json:"data_base64,omitempty"` // what is not UTF-8
}

type ballotEvent struct {
	head
	Ballot   string `json:"ballot"`
	Topic    string `json:"topic"`
	Kind     string `json:"kind"`
	Deadline string `json:"deadline"`
	Of       int    `json:"of"`
	timing
	hookData
}

// timing is what a ballot or verdict has more if it is that of an action.
type timing struct {
	At          string `json:"at,omitempty" doc:"of an action: the moment that its proposer named, by the proposer's wall clock"`
	ToleranceMS int64  `json:"tolerance_ms,omitempty" doc:"of an action"`
}

func newTiming(at time.Time, tolerance time.Duration) timing {
	if at.IsZero() {
		return timing{}
	}
	return timing{At: wire.Time(at), ToleranceMS: wire.ToMS(tolerance)}
}

func (t timing) text() string {
	if t.At == "" {
		return ""
	}
	return ", at " + t.At
}

// hookData is the data of a proposal, as hooks get it: not in the lines that are printed.
type hookData struct {
	Data       *string `json:"data,omitempty"`        // text
	DataBase64 *string `json:"data_base64,omitempty"` // what is not UTF-8
}

func newHookData(data []byte) (h hookData) {
	switch {
	case len(data) == 0:
	case utf8.Valid(data):
		s := string(data)
		h.Data = &s
	default:
		s := base64.StdEncoding.EncodeToString(data)
		h.DataBase64 = &s
	}
	return h
}

type verdictEvent struct {
	head
	Ballot  string   `json:"ballot"`
	Topic   string   `json:"topic"`
	Kind    string   `json:"kind"`
	Verdict string   `json:"verdict"` // yes, no, timed-out, unknown
	Yes     int      `json:"yes"`
	No      int      `json:"no"`
	Abstain int      `json:"abstain"`
	Of      int      `json:"of"`
	Silent  []string `json:"silent"`
	timing
}

type actionEvent struct {
	head
	Ballot string `json:"ballot"`
	Member string `json:"member"`
	Status string `json:"status,omitempty"`  // done, failed, late, cancelled; none yet in the line that --on-action gets
	LateMS *int64 `json:"late_ms,omitempty"` // by how much, if that is known
	Topic  string `json:"topic,omitempty"`   // this and the rest only in the line that --on-action gets
	Kind   string `json:"kind,omitempty"`
	timing
	hookData
}

// newMessage is a message event with the data as text if it is UTF-8.
func newMessage(from, to, topic string, data []byte) *messageEvent {
	e := &messageEvent{From: from, To: to, Topic: topic}
	if utf8.Valid(data) {
		s := string(data)
		e.Data = &s
	} else {
		s := base64.StdEncoding.EncodeToString(data)
		e.DataBase64 = &s
	}
	return e
}

func (*joinedEvent) kind() string        { return evJoined }
func (*leftEvent) kind() string          { return evLeft }
func (*disconnectedEvent) kind() string  { return evDisconnected }
func (*reconnectedEvent) kind() string   { return evReconnected }
func (*memberJoinedEvent) kind() string  { return evMemberJoined }
func (*memberLeftEvent) kind() string    { return evMemberLeft }
func (*leaderElectedEvent) kind() string { return evLeaderElected }
func (*leaderLostEvent) kind() string    { return evLeaderLost }
func (*settlingEvent) kind() string      { return evSettling }
func (*settledEvent) kind() string       { return evSettled }
func (*assignedEvent) kind() string      { return evAssigned }
func (*revokedEvent) kind() string       { return evRevoked }
func (*messageEvent) kind() string       { return evMessage }
func (*ballotEvent) kind() string        { return evBallot }
func (*verdictEvent) kind() string       { return evVerdict }
func (*actionEvent) kind() string        { return evAction }

func (e *joinedEvent) text() string       { return "as " + e.Member }
func (e *leftEvent) text() string         { return e.Member + ": " + e.Reason }
func (e *disconnectedEvent) text() string { return "" }
func (e *reconnectedEvent) text() string  { return "" }

func (e *memberJoinedEvent) text() string {
	if m := metaText(e.Meta); m != "" {
		return e.Member + "  " + m
	}
	return e.Member
}

func (e *memberLeftEvent) text() string { return e.Member + ": " + e.Reason }

func (e *leaderElectedEvent) text() string {
	return fmt.Sprintf("%s, token %d", e.Leader, e.Token)
}

func (e *leaderLostEvent) text() string {
	return fmt.Sprintf("%s: %s, token %d", e.Leader, e.Reason, e.Token)
}

func (e *settlingEvent) text() string { return fmt.Sprintf("generation %d", e.Generation) }

func (e *settledEvent) text() string {
	return fmt.Sprintf("%s, generation %d", count(e.Total, "place"), e.Generation)
}

func (e *assignedEvent) text() string {
	s := e.whose(e.Member) + fmt.Sprintf("index %d of %d, generation %d", e.Index, e.Total, e.Generation)
	if e.Buckets != nil {
		s += fmt.Sprintf(", %s of %d", count(len(*e.Buckets), "bucket"), e.Of)
	}
	if e.Items != nil {
		s += ", " + count(len(e.Items), "item")
	}
	return s
}

// more are the items, a line each: they may have spaces in them.
func (e *assignedEvent) more() []string { return e.Items }

func (e *revokedEvent) text() string {
	s := e.whose(e.Member) + fmt.Sprintf("%s, generation %d", e.Reason, e.Generation)
	switch {
	case e.Buckets == nil:
	case len(*e.Buckets) == 0:
		s += ", keeps its buckets"
	default:
		s += ", lets go of " + count(len(*e.Buckets), "bucket")
	}
	return s
}

func (e *messageEvent) text() string {
	data := ""
	switch {
	case e.Data != nil:
		data = *e.Data
	case e.DataBase64 != nil:
		data = "base64 " + *e.DataBase64
	}
	from := e.From
	if from == "" {
		from = "a client"
	}
	s := from + " to " + e.To
	if e.Topic != wire.DefaultTopic {
		s += ", " + e.Topic
	}
	return s + ": " + data
}

func (e *ballotEvent) text() string {
	return fmt.Sprintf("%s: %s, %s of %d", e.Ballot, e.Topic, kindText(e.Kind), e.Of) + e.timing.text()
}

func (e *verdictEvent) text() string {
	s := fmt.Sprintf("%s: %s: %s (%d yes, %d no, %d abstain of %d)", e.Verdict, e.Ballot, e.Topic, e.Yes, e.No, e.Abstain, e.Of)
	if len(e.Silent) > 0 {
		s += ", silent: " + strings.Join(e.Silent, " ")
	}
	return s + e.timing.text()
}

func (e *actionEvent) text() string {
	s := fmt.Sprintf("%s: %s, ballot %s", e.Member, e.Status, e.Ballot)
	if e.LateMS != nil {
		s += fmt.Sprintf(", %d ms late", *e.LateMS)
	}
	return s
}

// metaText is metadata as k=v pairs in the order of their keys.
func metaText(meta map[string]string) string {
	var pairs []string
	for _, k := range sortedKeys(meta) {
		pairs = append(pairs, k+"="+meta[k])
	}
	return strings.Join(pairs, " ")
}

// An eventWriter writes event lines, as JSON or for people. Safe for concurrent use.
//
// Each line is stamped and written under one lock, by a single unbuffered Write: in a file the lines of one process are
// in the order of their times, lines of several processes that append to it do not mix, and when emit returns the line
// is out. The last is what makes the lines a proof: `revoked` and `leader-lost` are out before the acknowledgement or
// release is sent.
type eventWriter struct {
	group    string
	election string
	self     string
	json     bool
	palette  palette
	now      func() time.Time

	mu  sync.Mutex
	out io.Writer
	err error // of the first Write that failed; nothing is written after it
}

// events is the writer of the command's event lines on standard output. Election is empty for a group and the other
// way round; self is empty for a client.
func (c *call) events(group, election, self string) *eventWriter {
	return &eventWriter{
		group: group, election: election, self: self,
		json:    c.g.json,
		palette: c.colours(c.stdout),
		now:     time.Now,
		out:     c.stdout,
	}
}

// emit stamps and writes an event. The error (standard output is gone) is returned by every later call too.
func (w *eventWriter) emit(e event) error {
	_, err := w.emitWhile(func() bool { return true }, e)
	return err
}

// emitWhile is emit for an event that is only true while live returns true: it is asked after the line has been
// stamped, and if it is not the line is not written. A grant whose deadline has passed is so never announced, and the
// announced time never lies behind the deadline. live must not call the writer.
func (w *eventWriter) emitWhile(live func() bool, e event) (written bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return false, w.err
	}
	line, err := w.line(e)
	if err != nil {
		return false, err
	}
	if !live() {
		return false, nil
	}
	if _, err := w.out.Write(line); err != nil {
		w.err = outputError(err)
		return false, w.err
	}
	return true, nil
}

// hookLine is the event as JSON whatever the output is: what hooks get on standard input. An event that has been emitted
// is the same there, to its time.
func (w *eventWriter) hookLine(e event) ([]byte, error) {
	if e.top().Time == "" {
		w.stamp(e)
	}
	return jsonLine(e)
}

// stamp fills in the head of an event, and the end of a hold that is released by this very line. It returns the time.
func (w *eventWriter) stamp(e event) time.Time {
	now := w.now()
	*e.top() = head{
		V: wire.Version, Time: wire.Time(now), Type: e.kind(),
		Group: w.group, Election: w.election, Self: w.self,
	}
	switch e := e.(type) {
	case *revokedEvent:
		if e.Until == "" {
			e.Until = e.Time
		}
	case *leaderLostEvent:
		if e.releasedNow {
			e.Until = e.Time
		}
	case *memberJoinedEvent:
		if e.Meta == nil {
			e.Meta = map[string]string{}
		}
	case *verdictEvent:
		if e.Silent == nil {
			e.Silent = []string{}
		}
	}
	return now
}

func (w *eventWriter) line(e event) ([]byte, error) {
	now := w.stamp(e)
	if w.json {
		return jsonLine(e)
	}
	// 02:31:07.123 assigned       web-1: index 2 of 5, generation 1763865067123456
	kind := w.palette.mark(e.kind())
	switch e.(type) {
	case *leaderLostEvent, *revokedEvent, *memberLeftEvent, *disconnectedEvent, *leftEvent:
		kind = w.palette.warn(e.kind())
	case *assignedEvent, *leaderElectedEvent, *settledEvent, *joinedEvent:
		kind = w.palette.good(e.kind())
	}
	pad := strings.Repeat(" ", max(len(evLeaderElected)-len(e.kind()), 0))
	line := w.palette.dim(now.Format("15:04:05.000")) + " " + kind + pad + " " + oneLine(e.text())
	lines := []byte(strings.TrimRight(line, " ") + "\n")
	if e, ok := e.(interface{ more() []string }); ok {
		for _, l := range e.more() {
			lines = append(lines, "    "+oneLine(l)+"\n"...)
		}
	}
	return lines, nil
}
