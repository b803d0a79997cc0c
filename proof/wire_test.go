package proof_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/textproto"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/leader"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// What docs/protocol.md says of what a process sends: by subject, which part of the document must name its headers, and as what it names the subject.
var documented = []struct {
	subject *regexp.Regexp
	part    string // its heading
	named   string
}{
	{regexp.MustCompile(`^\$KV\.QUORATE_wire\.(leader|election|member|settled|verdict|history|check)\.`), "### Writes", "`$KV.QUORATE_<ns>.<key>`"},
	{regexp.MustCompile(`^\$JS\.API\.STREAM\.MSG\.GET\.KV_QUORATE_wire$`), "### Reads", "`$JS.API.STREAM.MSG.GET.KV_QUORATE_<ns>`"},
	{regexp.MustCompile(`^\$JS\.API\.STREAM\.INFO\.KV_QUORATE_wire$`), "### Reads", "`$JS.API.STREAM.INFO.KV_QUORATE_<ns>`"},
	{regexp.MustCompile(`^\$JS\.API\.STREAM\.CREATE\.KV_QUORATE_wire$`), "## The bucket", "`$JS.API.STREAM.CREATE.KV_QUORATE_<ns>`"},
	{regexp.MustCompile(`^\$JS\.API\.INFO$`), "## The bucket", "`$JS.API.INFO`"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.heartbeat$`), "## Subjects and messages", "| `heartbeat` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.poke$`), "## Subjects and messages", "| `poke` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.ctl\.roster$`), "## Subjects and messages", "| `ctl.roster` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.ctl\.propose$`), "## Subjects and messages", "| `ctl.propose` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.ctl\.cancel$`), "## Subjects and messages", "| `ctl.cancel` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.ctl\.step-down$`), "## Subjects and messages", "| `ctl.step-down` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.ctl\.evict$`), "## Subjects and messages", "| `ctl.evict` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.ballot$`), "## Subjects and messages", "| `ballot` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.verdict$`), "## Subjects and messages", "| `verdict` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.cancel$`), "## Subjects and messages", "| `cancel` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.report$`), "## Subjects and messages", "| `report` |"},
	{regexp.MustCompile(`^quorate\.wire\.g\.[\w.]+\.(all|leader|member\.\w+)\.(talk|none)$`), "### Messages of a group", "`all.<topic>`, `leader.<topic>`, `member.<id>.<topic>`"},
	{regexp.MustCompile(`^quorate\.wire\.e\.\w+\.queue$`), "## Subjects and messages", "| `queue` (elections) |"},
	{regexp.MustCompile(`^quorate\.wire\.e\.\w+\.ctl\.step-down$`), "## Subjects and messages", "| `ctl.step-down` (elections) |"},
	{regexp.MustCompile(`^_INBOX\.`), "### Messages of a group", "An answer has"},
}

// sent is what processes send, by its place in documented: header names.
type sent struct {
	mu      sync.Mutex
	headers map[int]map[string]bool
	ttls    map[string]string // Nats-TTL by the kind of key, or of its removal
	foreign map[string]bool   // subjects that the document does not name
}

func (s *sent) note(f *testenv.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(documented, func(d struct {
		subject     *regexp.Regexp
		part, named string
	}) bool {
		return d.subject.MatchString(f.Subject)
	})
	if i < 0 {
		s.foreign[f.Subject] = true
		return
	}
	if s.headers[i] == nil {
		s.headers[i] = map[string]bool{}
	}
	if _, rest, ok := bytes.Cut(f.Header, []byte("\r\n")); ok {
		h, _ := textproto.NewReader(bufio.NewReader(bytes.NewReader(rest))).ReadMIMEHeader()
		for name := range h {
			s.headers[i][name] = true
		}
		if key, ok := strings.CutPrefix(f.Subject, "$KV.QUORATE_wire."); ok {
			kind, _, _ := strings.Cut(key, ".")
			if h.Get("KV-Operation") != "" {
				kind = "removal of " + kind
			}
			if t := h.Get("Nats-Ttl"); s.ttls[kind] == "" {
				s.ttls[kind] = t
			} else if s.ttls[kind] != t && !strings.Contains(f.Subject, ".talkers.") { // of whose members the record is a lease
				s.ttls[kind] += ", " + t
			}
		}
	}
}

// TestWireIsDocumented: whoever writes a client in another language finds each subject that we send to, and each header that we send, in the part
// of docs/protocol.md that is about it; and what stands there of ours is sent. (Fields of records: internal/wire, TestProtocolTables.)
func TestWireIsDocumented(t *testing.T) {
	s := &sent{headers: map[int]map[string]bool{}, ttls: map[string]string{}, foreign: map[string]bool{}}
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		ctx := t.Context()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		// How the bucket is made is not heard: that is done before a link can be listened to.
		open := func() *quorate.Namespace {
			ns := e.Namespace(quorate.Config{Namespace: "wire"})
			e.Link(ns).Filter(func(f *testenv.Frame) testenv.Verdict {
				if f.Dir == testenv.ToServer && (f.Verb == "PUB" || f.Verb == "HPUB") {
					s.note(f)
				}
				return testenv.Pass
			})
			return ns
		}
		a, b, c := open(), open(), open()
		must(a.Check(ctx))

		// A group: shares, votes, actions, messages of each kind.
		var members []*coord.Group
		for i, ns := range []*quorate.Namespace{a, b, c} {
			g, err := coord.Join(ctx, ns, "group", coord.Config{ID: fmt.Sprintf("m%d", i), ReturnWindow: time.Minute, Meta: map[string]string{"k": "v"}})
			if err != nil {
				t.Error(err)
				return
			}
			members = append(members, g)
			p, err := partition.Join(ctx, g, partition.Config{Buckets: 8, Weight: 2, Zone: "z"})
			must(err)
			go p.Run(ctx, func(ctx context.Context, _ *partition.Assignment) error { <-ctx.Done(); return nil })
			_, err = vote.Join(ctx, g, vote.Config{Decide: func(context.Context, vote.Ballot) vote.Answer { return vote.Yes() },
				Act: func(context.Context, vote.Ballot) error { return nil }})
			must(err)
			_, err = g.Handle("talk", func(_ context.Context, m coord.Message) ([]byte, error) {
				if string(m.Data) == "fail" {
					return nil, fmt.Errorf("as asked")
				}
				return m.Data, nil
			})
			must(err)
		}
		time.Sleep(20 * time.Second)
		g := members[1]
		must(g.SetMeta(ctx, map[string]string{"k": "w"}))
		must(g.Send(ctx, coord.ToAll, "talk", []byte("x")))
		_, err := g.Ask(ctx, coord.ToLeader, "talk", []byte("x"), coord.Retry)
		must(err)
		_, _ = g.Ask(ctx, coord.ToMember("m2"), "talk", []byte("fail"))
		_, _ = members[0].Gather(ctx, "talk", []byte("x"))
		_, _ = g.Ask(ctx, coord.ToMember("m0"), "none", nil) // which nobody handles
		_, err = g.Members(ctx)
		must(err)
		v, err := vote.Propose(ctx, g.Client, vote.Proposal{Topic: "act", At: time.Now().Add(5 * time.Second)})
		must(err)
		_, err = v.Outcome(ctx)
		must(err)
		v, err = vote.Propose(ctx, g.Client, vote.Proposal{Topic: "act", At: time.Now().Add(time.Minute)})
		must(err)
		_, err = vote.Cancel(ctx, g.Client, v.Ballot)
		must(err)
		must(g.StepDown(ctx, "m1"))
		time.Sleep(5 * time.Second)
		must(g.Evict(ctx, "m2"))
		time.Sleep(5 * time.Second)
		e.Kill(c) // whose namespace has nothing left
		must(members[0].Leave(ctx))

		// Plain elections: a queue, a hand-over to a named one, and one to whoever is next.
		for i, ns := range []*quorate.Namespace{a, b} {
			el, err := leader.New(ns, "election", leader.Config{ID: fmt.Sprintf("c%d", i)})
			must(err)
			go el.Run(ctx, func(ctx context.Context, _ *leader.Term) error { <-ctx.Done(); return nil })
			time.Sleep(5 * time.Second)
		}
		el, err := leader.New(a, "election", leader.Config{ID: "looks"})
		must(err)
		st, err := el.Leader(ctx)
		must(err)
		must(leader.StepDown(ctx, a, "election", st.Token, "c1"))
		time.Sleep(5 * time.Second)

		// A group without a leader, and one that is too small.
		q, err := coord.Join(ctx, a, "talkers", coord.Config{ID: "t0", MessagingOnly: true})
		must(err)
		must(q.Send(ctx, coord.ToMember("t0"), "talk", nil))
		small, err := coord.Join(ctx, a, "small", coord.Config{ID: "s0", MinSize: 2})
		must(err)
		time.Sleep(10 * time.Second)
		must(small.Leave(ctx))
		must(q.Leave(ctx))
	})

	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	part := func(heading string) string {
		_, rest, ok := strings.Cut(doc, "\n"+heading+"\n")
		if !ok {
			t.Fatalf("docs/protocol.md has no part %q", heading)
		}
		if i := regexp.MustCompile(`(?m)^#{2,3} `).FindStringIndex(rest); i != nil {
			rest = rest[:i[0]]
		}
		return rest
	}
	for subject := range s.foreign {
		t.Errorf("docs/protocol.md names nothing like %s, which is sent to", subject)
	}
	all := map[string]map[string]bool{} // headers that were sent, by the part that is about them
	for i, d := range documented {
		if !strings.Contains(doc, d.named) {
			t.Errorf("docs/protocol.md does not have %s", d.named)
		}
		if s.headers[i] == nil && !strings.Contains(d.subject.String(), "CREATE") {
			t.Errorf("nothing was sent like %s: this test shows nothing of it", d.subject)
		}
		if all[d.part] == nil {
			all[d.part] = map[string]bool{}
		}
		for name := range s.headers[i] {
			all[d.part][name] = true
			if !regexp.MustCompile("(?i)`" + regexp.QuoteMeta(name) + "`").MatchString(part(d.part)) {
				t.Errorf("%s is sent with the header %s, which %q of docs/protocol.md does not have", d.subject, name, d.part)
			}
		}
	}
	for kind, want := range map[string]struct{ ttl, said string }{
		"leader":              {"15", "| 5 leases, at least 10 s, set anew by each renewal |"},
		"election":            {"15", "| candidates of a plain election | the same |"},
		"member":              {"86400", "| the member; removed by it or by the leader | 24 h, written again every 8 h |"},
		"settled":             {"86400", "| the leader | 24 h, written again every 8 h while settled |"},
		"verdict":             {"3600", "| [Verdict](#verdict) | the leader, once | 1 h |"},
		"history":             {"3600", "| [History](#history) | the leader, once | 1 h |"},
		"check":               {"10", "create, read, update, purge | 10 s |"},
		"removal of leader":   {"15", "that of the key, but"},
		"removal of election": {"15", "that of the key, but"},
		"removal of member":   {"3600", "one hour for `member.*`, ten member timeouts if a leader removes it and that is more"},
	} {
		if s.ttls[kind] != want.ttl {
			t.Errorf("TTL of a %s: %s s, want %s", kind, s.ttls[kind], want.ttl)
		}
		if !strings.Contains(doc, want.said) {
			t.Errorf("docs/protocol.md does not say: %s", want.said)
		}
	}
	for _, heading := range []string{"### Writes", "### Messages of a group"} {
		for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z][\\w-]+)` \\|").FindAllStringSubmatch(part(heading), -1) {
			if name := textproto.CanonicalMIMEHeaderKey(m[1]); !all[heading][name] && m[1] != "Quorate-Refused" { // coord.TestRefusedWhenLeaving
				t.Errorf("docs/protocol.md has the header %s in %q, which nobody sends", m[1], heading)
			}
		}
	}
}
