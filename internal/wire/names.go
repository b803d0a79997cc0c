package wire

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds on what is accepted, from a caller and from the wire alike.
const (
	MaxName        = 63              // bytes in one name (group names: in each part between slashes)
	MaxGroup       = 255             // bytes in a whole group name
	MaxValue       = 1 << 10         // bytes of a leader's value
	MaxNext        = 3               // ids in a leader's next, and in the queue of its release
	MaxTopic       = 1 << 10         // bytes of a ballot's topic
	MaxMeta        = 4 << 10         // bytes of a member's metadata, keys and values together
	MaxRecord      = 1 << 20         // bytes of any record
	MaxData        = 512 << 10       // bytes of a message's or ballot's data
	MaxToken       = uint64(1) << 53 // tokens stay below this: exact in JSON, SQL bigint and the shell
	DefaultName    = "default"       // namespace
	DefaultTopic   = "text"          // message topic
	bucketPrefix   = "QUORATE_"
	leaderPrefix   = "leader."
	electionPrefix = "election."
	memberPrefix   = "member."
	settledPrefix  = "settled."
	verdictPrefix  = "verdict."
	historyPrefix  = "history."
	checkPrefix    = "check."
)

// A NameError says what is wrong with a name that a caller gave, and where.
type NameError struct {
	Kind    string // "group", "election", "namespace", "topic", "member id", "ballot id"
	Name    string
	Problem string
	Cleaned string // for member ids: a valid id made from it, else ""
}

func (e *NameError) Error() string {
	s := fmt.Sprintf("%s %q: %s", e.Kind, abbreviate(e.Name), e.Problem)
	if e.Cleaned != "" {
		s += fmt.Sprintf("; %q would do", e.Cleaned)
	}
	return s
}

func abbreviate(s string) string {
	if len(s) <= 80 {
		return s
	}
	return s[:77] + "..."
}

// checkName returns what is wrong with one name ("" when nothing is).
func checkName(s string) string {
	if s == "" {
		return "is empty"
	}
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if alnum || i > 0 && (r == '_' || r == '-') {
			continue
		}
		if r == utf8.RuneError {
			return fmt.Sprintf("byte %d is not UTF-8", i+1)
		}
		if i == 0 {
			return fmt.Sprintf("starts with %q; a name starts with a letter or digit", r)
		}
		return fmt.Sprintf("character %d is %q; letters, digits, '_' and '-' are allowed", i+1, r)
	}
	if len(s) > MaxName {
		return fmt.Sprintf("is %d bytes long, at most %d are allowed", len(s), MaxName)
	}
	return ""
}

// CheckNamespace, CheckElection, CheckTopic and CheckBallot return a *[NameError] for a name that is not
// [A-Za-z0-9][A-Za-z0-9_-]{0,62}.
func CheckNamespace(s string) error { return check("namespace", s) }

// CheckElection: see [CheckNamespace].
func CheckElection(s string) error { return check("election", s) }

// CheckTopic checks the topic of a group message: see [CheckNamespace].
func CheckTopic(s string) error { return check("topic", s) }

// CheckBallot checks a ballot id: see [CheckNamespace].
func CheckBallot(s string) error { return check("ballot id", s) }

func check(kind, s string) error {
	if p := checkName(s); p != "" {
		return &NameError{Kind: kind, Name: s, Problem: p}
	}
	return nil
}

// CheckGroup is [CheckNamespace] for a group name, whose parts may be separated by '/'.
func CheckGroup(s string) error {
	if len(s) > MaxGroup {
		return &NameError{Kind: "group", Name: s, Problem: fmt.Sprintf("is %d bytes long, at most %d are allowed", len(s), MaxGroup)}
	}
	for part := range strings.SplitSeq(s, "/") {
		if p := checkName(part); p != "" {
			if part != s {
				p = fmt.Sprintf("part %q %s", abbreviate(part), p)
			}
			return &NameError{Kind: "group", Name: s, Problem: p}
		}
	}
	return nil
}

// CheckID is [CheckNamespace] for a member id; 'all' and 'leader' are taken, and the error carries a cleaned form.
func CheckID(s string) error {
	p := checkName(s)
	if s == "all" || s == "leader" {
		p = "is reserved"
	}
	if p == "" {
		return nil
	}
	return &NameError{Kind: "member id", Name: s, Problem: p, Cleaned: CleanID(s)}
}

// CleanID makes a valid member id of any text: what is not allowed becomes '-', and it is cut at 63 bytes.
// It returns "" if nothing of the text can be kept.
func CleanID(s string) string {
	var b strings.Builder
	dash := false
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			b.WriteRune(r)
			dash = false
		case b.Len() == 0:
		case r == '_':
			b.WriteByte('_')
		case !dash:
			b.WriteByte('-')
			dash = true
		}
		if b.Len() == MaxName {
			break
		}
	}
	id := strings.TrimRight(b.String(), "-")
	if id == "all" || id == "leader" {
		id += "-1"
	}
	return id
}

// Bucket is the name of a namespace's KV bucket.
func Bucket(namespace string) string { return bucketPrefix + namespace }

// Stream is the name of the stream beneath the bucket.
func Stream(namespace string) string { return "KV_" + Bucket(namespace) }

// KVSubject is the subject a key of the bucket is stored under.
func KVSubject(namespace, key string) string { return "$KV." + Bucket(namespace) + "." + key }

// KVHint is the subject that the server republishes a key of the bucket on.
func KVHint(namespace, key string) string { return "quorate." + namespace + ".kv." + key }

// LeaderKey, ElectionKey, MemberKey, SettledKey, VerdictKey, HistoryKey and CheckKey are the keys of the bucket.
func LeaderKey(group string) string { return leaderPrefix + group }

// ElectionKey is the key of a plain election.
func ElectionKey(name string) string { return electionPrefix + name }

// MemberKey is the key of a member's record.
func MemberKey(group, id string) string { return memberPrefix + group + "." + id }

// MemberPrefix is what the keys of a group's members start with.
func MemberPrefix(group string) string { return memberPrefix + group + "." }

// SettledKey is the key of the settled generation of a group.
func SettledKey(group string) string { return settledPrefix + group }

// VerdictKey is the key of a ballot's sealed verdict.
func VerdictKey(group, ballot string) string { return verdictPrefix + group + "." + ballot }

// VerdictPrefix is what the keys of a group's verdicts start with.
func VerdictPrefix(group string) string { return verdictPrefix + group + "." }

// HistoryKey is the key of a past generation.
func HistoryKey(group string, generation uint64) string {
	return fmt.Sprintf("%s%s.%d", historyPrefix, group, generation)
}

// HistoryPrefix is what the keys of a group's history start with.
func HistoryPrefix(group string) string { return historyPrefix + group + "." }

// CheckKey is the scratch key of one check.
func CheckKey(nonce string) string { return checkPrefix + nonce }

// GroupOfLeaderKey returns the group whose leader record the key holds.
func GroupOfLeaderKey(key string) (string, bool) {
	t, ok := strings.CutPrefix(key, leaderPrefix)
	return t, ok && t != ""
}

// GroupOfMemberKey returns the group and member whose record the key holds.
func GroupOfMemberKey(key string) (group, id string, ok bool) {
	t, ok := strings.CutPrefix(key, memberPrefix)
	if !ok {
		return "", "", false
	}
	g, id, ok := strings.Cut(t, ".")
	return g, id, ok && g != "" && id != ""
}

// LeaderKeys is the pattern of all leader keys, MemberKeys of all member keys of all groups.
const (
	LeaderKeys = leaderPrefix + "*"
	MemberKeys = memberPrefix + "*.*"
)

// GroupSubject is a subject of a group: the prefix quorate.<namespace>.g.<group>. and the given rest.
func GroupSubject(namespace, group, rest string) string {
	return "quorate." + namespace + ".g." + group + "." + rest
}

// ElectionSubject is a subject of a plain election: the prefix quorate.<namespace>.e.<name>. and the given rest.
func ElectionSubject(namespace, name, rest string) string {
	return "quorate." + namespace + ".e." + name + "." + rest
}

// The rests of a group's subjects.
const (
	SubHeartbeat  = "heartbeat"
	SubRoster     = "ctl.roster"
	SubPropose    = "ctl.propose"
	SubStepDown   = "ctl.step-down"
	SubEvict      = "ctl.evict"
	SubCancel     = "ctl.cancel"
	SubBallot     = "ballot"
	SubVerdict    = "verdict"
	SubCancelled  = "cancel"
	SubPoke       = "poke"
	SubReport     = "report"
	SubQueue      = "queue" // candidates of a plain election tell the holder that they wait
	SubAllDot     = "all."
	SubLeaderDot  = "leader."
	SubMemberDot  = "member."
	HeaderReason  = "Quorate-Reason"
	HeaderNonce   = "Quorate-Nonce"
	HeaderToken   = "Quorate-Token"       // on a removal made by a leader: its token
	HeaderInc     = "Quorate-Incarnation" // on the removal of a member's record: whose it was
	HeaderNext    = "Quorate-Next"        // on a release: the candidate that it is for
	HeaderQueue   = "Quorate-Queue"       // on a release: the first candidates of the queue; empty: nobody waits
	ReasonLeft    = "left"
	ReasonEvicted = "evicted"
	ReasonExpired = "expired"
	ReasonResign  = "resigned"
	ReasonStep    = "stepped-down"
	ReasonUndone  = "undone"
)

// Answerable says whether an answer may go to the reply subject of a request: to somebody's inbox, not to what is NATS' own ($KV, $JS) or ours. NATS asks
// nobody whether he may publish where he wants to be answered, so whoever answers everything could be made to write a record for him, or to say what the
// server alone says.
func Answerable(reply string) bool {
	return reply != "" && !strings.HasPrefix(reply, "$") && !strings.HasPrefix(reply, "quorate.")
}
