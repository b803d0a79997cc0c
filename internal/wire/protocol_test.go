package wire_test

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// documented are the types that docs/protocol.md describes: every one of this package that goes over the wire. Those without
// a version of their own are parts of others.
var documented = []any{
	wire.Leader{}, wire.Params{}, wire.Member{}, wire.Settled{}, wire.Place{}, wire.History{}, wire.Verdict{}, wire.Reason{}, wire.Heartbeat{}, wire.Reply{},
	wire.Roster{}, wire.RosterMember{}, wire.Proposal{}, wire.Cancel{}, wire.ProposalAnswer{}, wire.Ballot{}, wire.Vote{},
	wire.StepDown{}, wire.Evict{}, wire.Done{}, wire.When{}, wire.Report{},
}

// example finds the examples of the document: its type, and the JSON.
var example = regexp.MustCompile("(?ms)^```json ?(\\w*)\n(.*?)^```$")

func protocol(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// names lists the JSON fields of a type, in order; embedded ones are described with their own type.
func names(rt reflect.Type) []string {
	var l []string
	for f := range rt.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			l = append(l, name)
		}
	}
	return l
}

// TestProtocolExamples decodes each example of the document, encodes it again, and demands the same bytes. Each field of
// each type must be in an example, so that none is without one.
func TestProtocolExamples(t *testing.T) {
	doc := protocol(t)
	types := map[string]reflect.Type{}
	for _, v := range documented {
		types[reflect.TypeOf(v).Name()] = reflect.TypeOf(v)
	}
	shown := map[string]bool{} // type.field
	n := 0
	for _, m := range example.FindAllStringSubmatch(doc, -1) {
		rt := types[m[1]]
		if rt == nil {
			t.Errorf("an example of %q, which is no type of package wire: %.60s", m[1], m[2])
			continue
		}
		n++
		var want bytes.Buffer
		if err := json.Compact(&want, []byte(m[2])); err != nil {
			t.Errorf("example of %s: %v", m[1], err)
			continue
		}
		v := reflect.New(rt)
		if err := wire.Decode([]byte(m[2]), v.Interface()); err != nil {
			t.Errorf("example of %s: %v", m[1], err)
			continue
		}
		if got := wire.Encode(v.Interface()); !bytes.Equal(got, want.Bytes()) {
			t.Errorf("example of %s\n got %s\nwant %s", m[1], got, want.Bytes())
		}
		mark(shown, v.Elem())
	}
	if n < 12 {
		t.Errorf("%d examples found in docs/protocol.md, want one of each record and message at least", n)
	}
	for name, rt := range types {
		for _, f := range names(rt) {
			if !shown[name+"."+f] {
				t.Errorf("no example in docs/protocol.md shows %s of %s", f, name)
			}
		}
	}
}

// mark notes which fields of a value, and of what it holds, were encoded.
func mark(shown map[string]bool, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			mark(shown, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			mark(shown, v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			tag := v.Type().Field(i).Tag.Get("json")
			name, rest, _ := strings.Cut(tag, ",")
			if !strings.Contains(rest, "omitempty") || !v.Field(i).IsZero() {
				shown[v.Type().Name()+"."+name] = true
			}
			mark(shown, v.Field(i))
		}
	}
}

// TestProtocolTables compares the tables of fields with the types.
func TestProtocolTables(t *testing.T) {
	sections := regexp.MustCompile(`(?m)^###? `).Split(protocol(t), -1)
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]*)\\|")
	for _, v := range documented {
		rt := reflect.TypeOf(v)
		i := slices.IndexFunc(sections, func(s string) bool { return strings.HasPrefix(s, rt.Name()+"\n") })
		if i < 0 {
			t.Errorf("docs/protocol.md has no section %s", rt.Name())
			continue
		}
		var got []string
		for _, m := range row.FindAllStringSubmatch(sections[i], -1) {
			got = append(got, m[1])
			f, ok := field(rt, m[1])
			if ok && strings.Contains(f.Tag.Get("json"), "omitempty") != strings.Contains(m[2], "optional") {
				t.Errorf("docs/protocol.md, %s: whether %s is optional is told wrongly", rt.Name(), m[1])
			}
		}
		if want := names(rt); !slices.Equal(got, want) {
			t.Errorf("docs/protocol.md, fields of %s:\n got %v\nwant %v", rt.Name(), got, want)
		}
	}
}

func field(rt reflect.Type, name string) (reflect.StructField, bool) {
	for f := range rt.Fields() {
		if n, _, _ := strings.Cut(f.Tag.Get("json"), ","); n == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// TestProtocolNames: the bounds and names in the document are those of the code.
func TestProtocolNames(t *testing.T) {
	doc := protocol(t)
	for _, s := range []string{
		wire.Bucket("<ns>"), wire.Stream("<ns>"), wire.KVSubject("<ns>", ">"), wire.KVHint("<ns>", ">"), wire.LeaderKey("<group>"), wire.ElectionKey("<name>"),
		wire.MemberKey("<group>", "<id>"), wire.SettledKey("<group>"), wire.VerdictKey("<group>", "<ballot>"), wire.HistoryPrefix("<group>") + "<generation>",
		wire.CheckKey("<nonce>"), wire.GroupSubject("<ns>", "<group>", ""), wire.ElectionSubject("<ns>", "<name>", ""),
		wire.SubHeartbeat, wire.SubRoster, wire.SubPropose, wire.SubStepDown, wire.SubEvict, wire.SubCancel, wire.SubBallot, wire.SubVerdict,
		wire.SubCancelled, wire.SubPoke, wire.SubReport, wire.SubQueue, wire.SubAllDot + "<topic>", wire.SubLeaderDot + "<topic>", wire.SubMemberDot + "<id>.<topic>",
		wire.HeaderReason, wire.HeaderNonce, wire.HeaderToken, wire.ReasonLeft, wire.ReasonEvicted, wire.ReasonExpired, wire.ReasonResign, wire.ReasonStep, wire.ReasonUndone,
		wire.RoleLead, wire.RoleWork, wire.RoleVote, wire.Settling, wire.SettledDone, wire.MapJump, wire.Yes, wire.No, wire.Abstain, wire.TimedOut, wire.Unknown,
		wire.GoneEvicted, wire.GoneExpired, wire.GoneSuperseded, wire.GoneLeft, wire.DoneGone, wire.DoneSuccessor, wire.DoneBad, wire.DefaultName, wire.DefaultTopic,
	} {
		if !strings.Contains(doc, "`"+s+"`") {
			t.Errorf("docs/protocol.md does not name `%s`", s)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"no record", `hello`, "not a record"},
		{"no version", `{"id":"a"}`, "no version"},
		{"another version", `{"v":2,"id":"a"}`, wire.ErrVersion.Error()},
		{"another version behind", `{"v":1,"id":"a","v":2}`, wire.ErrVersion.Error()},
		{"another version behind, in capitals", `{"v":1,"V":2}`, wire.ErrVersion.Error()},
		{"another version behind, escaped", `{"v":1,"\u0076":2}`, wire.ErrVersion.Error()},
		{"a longer version", `{"v":10,"id":"a"}`, wire.ErrVersion.Error()},
		{"a version that is no whole number", `{"v":1.5,"id":"a"}`, "not a record"},
		{"no record behind the version", `{"v":1,"id"`, "not a record"},
		{"another type", `{"v":1,"id":7}`, "does not decode"},
		{"too large", `{"v":1,"id":"` + strings.Repeat("x", wire.MaxRecord) + `"}`, "at most"},
	} {
		var r wire.Leader
		if err := wire.Decode([]byte(c.data), &r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	var r wire.Leader
	if err := wire.Decode([]byte(`{"v":1,"id":"a","later":{"x":[1]}}`), &r); err != nil || r.ID != "a" {
		t.Errorf("a field of a later version: got %v, %+v; want it ignored", err, r)
	}
}

// TestDecodeAnySpelling: what JSON allows is read, whatever it begins with; only what we write ourselves is read once.
func TestDecodeAnySpelling(t *testing.T) {
	for _, data := range []string{`{"v":1,"id":"v"}`, ` {"v":1,"id":"v"}`, `{"id":"v","v":1}`, `{"v" : 1, "id" : "v"}`, `{"v":1,"id":"\u0076"}`, `{"v":2,"v":1,"id":"v"}`, `{"V":1,"id":"v"}`} {
		var r wire.Leader
		if err := wire.Decode([]byte(data), &r); err != nil || r.ID != "v" || r.V != wire.Version {
			t.Errorf("%s: got %+v, %v", data, r, err)
		}
	}
}

func TestNames(t *testing.T) {
	ok := map[string]func(string) error{"group": wire.CheckGroup, "id": wire.CheckID, "namespace": wire.CheckNamespace, "ballot": wire.CheckBallot}
	for kind, check := range ok {
		for _, s := range []string{"a", "A9", "host-a_1", strings.Repeat("x", wire.MaxName)} {
			if err := check(s); err != nil {
				t.Errorf("%s %q: got %v, want none", kind, s, err)
			}
		}
		for s, want := range map[string]string{"": "is empty", "-a": `starts with '-'`, "a.b": "character 2 is '.'", "a b": "character 2 is ' '", "a\xff": "byte 2 is not UTF-8",
			strings.Repeat("x", wire.MaxName+1): "at most 63", "a>": "character 2 is '>'", "ä": "starts with 'ä'"} {
			if err := check(s); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q: got %v, want an error with %q", kind, s, err, want)
			}
		}
	}
	if err := wire.CheckGroup("plant/line-2/robots"); err != nil {
		t.Errorf("nested group: %v", err)
	}
	for _, s := range []string{"a//b", "/a", "a/", strings.Repeat("x/", 130) + "x"} {
		if wire.CheckGroup(s) == nil {
			t.Errorf("group %q: no error", s)
		}
	}
	for _, s := range []string{"all", "leader", "host.example.org", "a b"} {
		err := wire.CheckID(s)
		if err == nil {
			t.Errorf("member id %q: no error", s)
			continue
		}
		if id := wire.CleanID(s); wire.CheckID(id) != nil || !strings.Contains(err.Error(), strconv.Quote(id)) {
			t.Errorf("member id %q: cleaned to %q, and the error is %v", s, id, err)
		}
	}
}

// FuzzDecode: whatever comes over the wire is refused or read, never a panic, and what was read can be encoded again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"a","inc":1,"seq":1}`))
	f.Add([]byte(`{"v":1,"places":[{"id":"a","inc":1}],"members":[{"index":null}],"verdict":{"v":1}}`))
	f.Add([]byte(`{"v":1,"id":"a","v":2}`))
	for _, m := range example.FindAllStringSubmatch(protocol(f), -1) {
		f.Add([]byte(m[2]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range documented {
			p := reflect.New(reflect.TypeOf(v)).Interface()
			if wire.Decode(data, p) != nil {
				continue
			}
			if v := reflect.ValueOf(p).Elem().FieldByName("V"); v.IsValid() && v.Int() != wire.Version {
				t.Errorf("%q is read as version %d", data, v.Int())
			}
			// What is passed on says the same.
			again, q := wire.Encode(p), reflect.New(reflect.TypeOf(v)).Interface()
			if err := wire.Decode(again, q); err != nil && reflect.ValueOf(p).Elem().FieldByName("V").IsValid() {
				t.Errorf("%q is read, and written as %q, which is not: %v", data, again, err)
			} else if err == nil && string(wire.Encode(q)) != string(again) {
				t.Errorf("%q is read and written as %q, and then as %q", data, again, wire.Encode(q))
			}
		}
	})
}

// FuzzMS: durations from the wire keep their sign and their order, however large they are.
func FuzzMS(f *testing.F) {
	for _, ms := range []int64{0, 1, -1, 6000, math.MaxInt64, math.MinInt64, math.MaxInt64 / 1_000_000, math.MaxInt64/1_000_000 + 1} {
		f.Add(ms, ms+1)
	}
	f.Fuzz(func(t *testing.T, a, b int64) {
		x, y := wire.MS(a), wire.MS(b)
		if a < b && x > y || a > b && x < y || a > 0 != (x > 0) || a < 0 != (x < 0) {
			t.Errorf("%d ms is %v, %d ms is %v", a, x, b, y)
		}
		if back := wire.ToMS(x); x == time.Duration(a)*time.Millisecond && a > math.MinInt64/1_000_000 && a < math.MaxInt64/1_000_000 && back != a {
			t.Errorf("%d ms is %v is %d ms", a, x, back)
		}
	})
}

// FuzzCleanID: what it makes is a valid id, or nothing.
func FuzzCleanID(f *testing.F) {
	for _, s := range []string{"", "all", "host.example.org", "--a", strings.Repeat("é", 100) + "x", strings.Repeat("a.", 60)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id := wire.CleanID(s); id != "" && wire.CheckID(id) != nil {
			t.Errorf("CleanID(%q) = %q: %v", s, id, wire.CheckID(id))
		}
	})
}

// What a leader reads and writes for each member six times a lease.
func BenchmarkHeartbeat(b *testing.B) {
	data := wire.Encode(wire.Heartbeat{V: wire.Version, ID: "worker-1", Incarnation: 1789999999999999, Seq: 123456, Ack: 1789999999999999, Roles: []string{wire.RoleLead, wire.RoleWork}, Joined: wire.Time(time.Unix(1e9, 0))})
	b.ReportAllocs()
	for b.Loop() {
		var h wire.Heartbeat
		if err := wire.Decode(data, &h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReply(b *testing.B) {
	r := wire.Reply{V: wire.Version, Seq: 123456, Token: 1789999999999999, GrantMS: 6000, Gen: 1789999999999999, Index: 3, Total: 7, LeaseMS: 3000, AckMS: 3000, Map: wire.MapJump}
	data := wire.Encode(r)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r wire.Reply
			if err := wire.Decode(data, &r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			wire.Encode(r)
		}
	})
}
