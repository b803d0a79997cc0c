package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/partition"
	"github.com/quorate/quorate/testenv"
	"github.com/quorate/quorate/vote"
)

// The page shows the groups, and of one of them who leads, who holds what, and how everybody is, without a line of script.
func TestPage(t *testing.T) {
	run(t, Config{Where: "somewhere"}, func(s *scene) {
		b := s.browser()
		if code, page := b.get("/"); code != http.StatusOK || !strings.Contains(page, "nobody has joined a group of this namespace yet") {
			t.Errorf("before there is a namespace: %d\n%s", code, page)
		}
		s.member("workers", "a", "yes", map[string]string{"zone": "north"})
		s.member("workers", "b", "no", nil)
		s.member("plant/valves", "v", "", nil)
		time.Sleep(3 * lease)
		code, page := b.get("/")
		for _, want := range []string{"namespace <b>default</b>", "somewhere", "up to date", `href="/?group=plant%2Fvalves"`, `href="/?group=workers"`, "Choose a group."} {
			if code != http.StatusOK || !strings.Contains(page, want) {
				t.Errorf("the list: %d, without %q\n%s", code, want, page)
			}
		}
		v := b.view("group=workers") // while somebody looks the leader is asked
		v.shows("members", `<span class="badge good">alive</span>`)
		code, page = b.get("/?group=workers")
		for _, want := range []string{
			"<title>workers · quorate</title>", `<b>a</b>`, `<span class="badge good">settled</span>`, // who leads, how it is
			`<li data-key="0" class="c0 alive lead"><span class="index">0</span>`, `<li data-key="1" class="c1 alive"><span class="index">1</span>`, // who holds what
			"0 <span class=\"quiet\">of 2</span>", "<bdi>zone</bdi>=</span><bdi>north</bdi>", `<a class="button small" href="/evict?group=workers&amp;member=b&amp;incarnation=`,
			"2 shares, generation ", "None in the last hour.", "2 members can vote",
		} {
			if code != http.StatusOK || !strings.Contains(page, want) {
				t.Errorf("the group: %d, without %q\n%s", code, want, page)
			}
		}
		v.close()
		if code, page := b.get("/?group=nobody"); code != http.StatusNotFound || !strings.Contains(page, "There is no group of that name.") {
			t.Errorf("a group that is not there: %d\n%s", code, page)
		}
		if code, _ := b.get("/?group=" + url.QueryEscape("a b<c")); code != http.StatusNotFound {
			t.Errorf("a name that none can have: %d", code)
		}
		if code, _ := b.get("/nothing"); code != http.StatusNotFound {
			t.Errorf("a page that is not there: %d", code)
		}
		if code, _, _ := b.post("/", url.Values{}); code != http.StatusMethodNotAllowed {
			t.Errorf("a form to the page: %d", code)
		}
	})
}

// What happens is shown by itself: a member that dies is late, then gone, and its share goes to the others; a new leader, a vote while it is open and its
// verdict, an action's reports.
func TestLive(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		a, _ := s.member("workers", "a", "yes", nil)
		s.member("workers", "b", "yes", nil)
		c, _ := s.member("workers", "c", "yes", nil)
		d, _ := s.member("workers", "d", "yes", nil)
		time.Sleep(3 * lease)
		v := s.browser().view("group=workers")
		v.shows("members", `class="alive"`, `class="alive lead"`)
		v.shows("shares", `<span class="index">3</span> <span class="owner">d</span>`)
		s.e.Kill(d)
		v.shows("members", `class="late"`, "heard <time")
		v.shows("shares", `<span class="owner">d</span> <span class="flag">late</span>`)
		v.shows("summary", "1 late")
		v.shows("timeline", "<b>d</b> expired: its lease ran out unheard")
		v.shows("timeline", "3 shares, generation ")
		if strings.Contains(v.section("members"), ">d<") {
			t.Errorf("a member that expired is listed:\n%s", v.section("members"))
		}

		v.shows("summary", "<b>a</b>")
		s.e.Kill(a)
		v.shows("summary", "leader unheard", "not heard since")
		v.shows("timeline", "<b>a</b> was not heard for its lease", "<b>b</b> leads, token ")
		v.shows("timeline", `class="nobody`)
		v.shows("summary", "<b>b</b>")
		time.Sleep(4 * lease)

		// A ballot that somebody is silent on stays open.
		s.e.Cut(c)
		time.Sleep(lease / 2)
		client, err := coord.Open(s.ctx, s.e.Namespace(), "workers")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(s.ctx, lease)
		defer cancel()
		s.wg.Go(func() {
			if _, err := vote.Propose(ctx, client, vote.Proposal{Topic: "go on?", Kind: vote.Consensus}); err != nil {
				t.Errorf("propose: %v", err)
			}
		})
		v.shows("ballots", "voting", "go on?", "2 members asked")
		v.shows("ballots", "timed out", "1 yes, 0 no, 0 abstain, 1 silent of 2", "silent: c", `aria-label="1 yes, 0 no, 0 abstain, 1 silent, of 2"`)
		s.e.Heal(c)
		time.Sleep(3 * lease)
		if _, err := vote.Propose(s.ctx, client, vote.Proposal{Topic: "open", At: time.Now().Add(5 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		v.shows("ballots", "Action at <time", " · b done · c done")
		v.close()
	})
}

// What happened before the page's server was started is shown from records: since when somebody leads, the verdicts of the last hour.
func TestFromRecords(t *testing.T) {
	testenv.Run(t, func(t *testing.T, e *testenv.Env) {
		s := &scene{t: t, e: e, pipe: newPipe()}
		ctx, cancel := context.WithCancel(context.Background())
		s.ctx = ctx
		_, g := s.member("workers", "a", "yes", nil)
		s.member("workers", "b", "yes", nil)
		time.Sleep(3 * lease)
		if _, err := vote.Propose(ctx, g.Client, vote.Proposal{Topic: "before"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.d = New(Config{})
		s.nc, s.link = e.Connect("dashboard")
		s.wg.Go(func() { _ = s.d.Run(ctx, s.open) }) // its error would show below
		s.until("records", func() bool {
			p := s.d.page(query{Group: "workers"}, time.Now())
			return p.Group != nil && p.Group.Leader == "a" && len(p.Group.Shares) == 2 && len(p.Group.Ballots) == 1
		})
		time.Sleep(lease)
		p := s.d.page(query{Group: "workers"}, time.Now())
		if since := time.Since(p.Group.Since); since < time.Minute || since > 2*time.Minute {
			t.Errorf("it leads since %v", since)
		}
		settled := 0
		for _, e := range p.Group.Events {
			if e.Kind == "settled" && strings.HasPrefix(e.Text, "2 shares, generation ") && time.Since(e.At) > time.Minute {
				settled++
			}
			if e.Kind == "joined" {
				t.Errorf("who was there has not joined now: %+v", e)
			}
		}
		if settled == 0 {
			t.Errorf("generations on record are not told: %+v", p.Group.Events)
		}
		if b := p.Group.Ballots[0]; b.Topic != "before" || b.Word != "yes" {
			t.Errorf("the ballot: %+v", b)
		}
		cancel()
		s.wg.Wait()
	})
}

// An outage is told, with since when, and waited out; what is shown then is up to date.
func TestOutage(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		s.member("workers", "a", "", nil)
		b, _ := s.member("workers", "b", "", nil)
		time.Sleep(3 * lease)
		v := s.browser().view("group=workers")
		v.shows("link", "up to date")
		s.link.Cut(testenv.Both) // nothing gets through, and nobody says so
		v.shows("link", "NATS does not answer: as of <time")
		s.link.Down(true)
		s.link.Kill() // the connection breaks
		v.shows("link", "NATS is away: as of <time")
		at := regexp.MustCompile(`datetime="([^"]+)"`).FindStringSubmatch(v.section("link"))
		since, err := time.Parse(time.RFC3339Nano, at[1])
		if err != nil || time.Since(since) < 10*time.Second || time.Since(since) > 3*time.Minute {
			t.Errorf("as of %v ago (%v)", time.Since(since), err)
		}
		if !strings.Contains(v.section("members"), ">b<") {
			t.Error("an outage is taken for the death of everybody")
		}
		s.e.Kill(b)
		time.Sleep(4 * lease)
		s.link.Down(false)
		s.link.Heal()
		v.shows("link", "up to date")
		v.shows("timeline", "<b>b</b> expired")
		v.close()
	})
}

// A bucket that is lost is told, and what stands in the one that is made in its place is shown.
func TestBucketLost(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		s.e.Invariants().BucketLost()
		ns, _ := s.member("workers", "a", "", nil)
		time.Sleep(3 * lease)
		v := s.browser().view("group=workers")
		v.shows("summary", "<b>a</b>")
		s.e.Kill(ns) // nobody makes another at once
		js, err := s.nc.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteStream(wire.Stream("default")); err != nil {
			t.Fatal(err)
		}
		v.shows("link", "the bucket was lost", "does not exist")
		s.member("workers", "b", "", nil)
		v.shows("link", "up to date")
		v.shows("summary", "<b>b</b>", "settled")
		v.close()
	})
}

// All viewers of a group cost what one does, and nobody watching costs next to nothing.
func TestOneWatchForAll(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		for _, id := range []string{"a", "b", "c"} {
			s.member("workers", id, "", nil)
		}
		time.Sleep(5 * lease)
		sent := func(d time.Duration) uint64 {
			before := s.nc.Stats().OutMsgs
			time.Sleep(d)
			return s.nc.Stats().OutMsgs - before
		}
		idle := sent(time.Minute)
		// Five kinds of records, each looked at every six seconds, at one request, or two where leaders renew.
		if idle > 100 {
			t.Errorf("nobody watches: %d messages in a minute", idle)
		}
		one := s.browser().view("group=workers")
		one.shows("members", "alive")
		single := sent(time.Minute)
		if single > idle+70 {
			t.Errorf("one viewer: %d messages in a minute, %d without", single, idle)
		}
		var all []*viewer
		for range 30 {
			all = append(all, s.browser().view("group=workers"))
		}
		all[29].shows("members", "alive")
		if many := sent(time.Minute); many > single+10 {
			t.Errorf("31 viewers: %d messages in a minute, one: %d", many, single)
		}
		events := func() (n int) {
			for _, v := range all {
				v.mu.Lock()
				n += v.events
				v.mu.Unlock()
			}
			return n
		}
		before := events()
		time.Sleep(time.Minute)
		// Nothing happens: the time line moves on each second, and nothing else is sent.
		if n := events() - before; n > 30*65 {
			t.Errorf("%d events for 30 viewers in a minute in which nothing happened", n)
		}
		for _, v := range append(all, one) {
			v.close()
		}
		if after := sent(time.Minute); after > idle+10 {
			t.Errorf("after they have gone: %d messages in a minute, %d before they came", after, idle)
		}
	})
}

// No text from the wire is markup or another line of the stream, however it is written.
func TestHostile(t *testing.T) {
	const evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\r\ndata: x\rdata: y\n\nevent: section\n\u202e{{.}}\u2028"
	run(t, Config{Namespace: "default", Where: evil}, func(s *scene) {
		ns := s.e.Namespace()
		_, err := coord.Join(s.ctx, ns, "workers", coord.Config{ID: "a", Meta: map[string]string{evil: evil, "long": strings.Repeat("x", 2000)}})
		if err != nil {
			t.Fatal(err)
		}
		s.member("workers", "b", "no", nil)
		client, err := coord.Open(s.ctx, ns, "workers")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lease)
		b := s.browser()
		v := b.view("group=workers&find=" + url.QueryEscape(evil) + "&span=" + url.QueryEscape(evil) + "&act=" + url.QueryEscape(evil))
		w := b.view("group=workers")
		if _, err := vote.Propose(s.ctx, client, vote.Proposal{Topic: evil, Kind: "1"}); err != nil {
			t.Fatal(err)
		}
		w.shows("ballots", "&lt;script&gt;", "&lt;b&gt;not&lt;/b&gt; now")
		w.shows("members", "&lt;script&gt;")
		// Records and messages that no program of ours writes.
		js, err := s.nc.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		forged := map[string]any{
			"leader.evil":           wire.Leader{V: 1, ID: evil, Nonce: evil, Value: evil, Host: evil, Since: evil, Params: wire.Params{LeaseMS: -5, MinSize: -1}},
			"leader.workers2":       wire.Leader{V: 1, ID: "x", Value: evil, Host: evil, Since: "9999-12-31T23:59:59Z", Params: wire.Params{LeaseMS: 1 << 62}},
			"member.workers2.x":     wire.Member{V: 1, ID: "x", Host: evil, Version: evil, Joined: evil, Roles: []string{evil}, Meta: map[string]string{evil: evil}},
			"member.workers2.y":     wire.Member{V: 1, ID: "z"},
			"settled.workers2":      wire.Settled{V: 1, Phase: "settled", Generation: 7, Map: evil, Cause: evil, Began: evil, Places: []wire.Place{{ID: evil, Incarnation: 1}, {ID: "x"}}},
			"history.workers2.7":    wire.History{V: 1, Group: evil, Generation: 7, Cause: evil, Began: evil, Settled: evil, Members: []string{evil}},
			"history.workers2.evil": "no history",
			"verdict.workers2.b":    wire.Verdict{V: 1, Ballot: "b", Topic: evil, Kind: evil, Verdict: "yes", Yes: -3, No: 1 << 30, Of: 2, Silent: []string{evil}, Reasons: []wire.Reason{{Member: evil, Text: evil}}, DecidedAt: evil},
			"verdict.workers2.c":    wire.Verdict{V: 1, Ballot: "other", Topic: evil, Verdict: "yes"},
			"verdict.workers2.d":    wire.Verdict{V: 1, Ballot: "d", Topic: evil, Verdict: evil},
			"settled.workers3":      []int{1},
			"leader.workers3":       map[string]any{"v": 2},
		}
		for key, rec := range forged {
			if _, err := js.Publish(wire.KVSubject("default", key), wire.Encode(rec)); err != nil {
				t.Fatal(err)
			}
		}
		x := b.view("group=workers2")
		x.shows("summary", "&lt;script&gt;") // the group is known now: a ballot of one that is not would be dropped
		for _, m := range []any{wire.Ballot{V: 1, Ballot: "open", Topic: evil, Kind: evil, From: evil, LeftMS: 1 << 62, Of: -1, When: &wire.When{Wall: evil}},
			wire.Ballot{V: 1, Ballot: evil, Topic: evil}, "nothing"} {
			if err := s.nc.Publish(wire.GroupSubject("default", "workers2", wire.SubBallot), wire.Encode(m)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.nc.Publish(wire.GroupSubject("default", "workers2", wire.SubReport), wire.Encode(wire.Report{V: 1, Ballot: "b", ID: "x", Status: evil})); err != nil {
			t.Fatal(err)
		}
		x.shows("ballots", "&lt;script&gt;", "voting")
		x.shows("members", "&lt;script&gt;")
		time.Sleep(2 * lease)
		pages := []string{}
		for _, path := range []string{"/", "/?group=workers", "/?group=workers2", "/?group=workers3", "/?group=evil", "/?group=" + url.QueryEscape(evil), "/?find=" + url.QueryEscape(evil),
			"/vote?group=workers&kind=majority&topic=" + url.QueryEscape(evil), "/vote?group=workers&kind=" + url.QueryEscape(evil) + "&topic=x", "/step-down?group=workers&to=" + url.QueryEscape(evil),
			"/evict?group=workers&member=" + url.QueryEscape(evil) + "&incarnation=1", "/evict?group=workers2&member=x&incarnation=" + url.QueryEscape(evil)} {
			code, page := b.get(path)
			if code >= 500 {
				t.Errorf("%s: %d", path, code)
			}
			pages = append(pages, page)
		}
		for _, live := range []*viewer{v, w, x} {
			for _, name := range sections {
				pages = append(pages, live.section(name))
			}
			live.close()
		}
		for _, live := range []*viewer{v, w, x} { // a browser takes it for the end of a line
			for _, name := range sections {
				if strings.Contains(live.section(name), "\r") {
					t.Errorf("%s: a carriage return got through", name)
				}
			}
		}
		for _, page := range pages {
			for _, bad := range []string{"<script>", "<img", "onerror=alert(1)>", "<b>not"} {
				if i := strings.Index(page, bad); i >= 0 {
					t.Errorf("%q got through: …%q…", bad, page[max(i-80, 0):min(i+80, len(page))])
				}
			}
		}
	})
}

// A page of a large group stays one that a browser can show: those who need looking at, the rest by their ids.
func TestLargeGroup(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		ns := s.e.Namespace()
		js, err := s.e.Conn(ns).JetStream()
		if err != nil {
			t.Fatal(err)
		}
		put := func(key string, rec any) {
			if _, err := js.Publish(wire.KVSubject("default", key), wire.Encode(rec)); err != nil {
				t.Fatal(err)
			}
		}
		const n = 2000
		settled := wire.Settled{V: 1, Phase: wire.SettledDone, Generation: 9, Map: wire.MapJump}
		for i := range n {
			id := fmt.Sprintf("m%04d", i)
			put(wire.MemberKey("big", id), wire.Member{V: 1, ID: id, Incarnation: uint64(i + 1), Roles: []string{"lead", "work"}, Joined: wire.Time(time.Now())})
			settled.Places = append(settled.Places, wire.Place{ID: id, Incarnation: uint64(i + 1)})
		}
		put(wire.SettledKey("big"), settled)
		put(wire.LeaderKey("big"), wire.Leader{V: 1, ID: "m1999", Nonce: "n", Since: wire.Time(time.Now()), Params: wire.Params{LeaseMS: 3000}})
		b := s.browser()
		var page string
		s.until("the leader and all members", func() bool {
			_, page = b.get("/?group=big")
			return strings.Contains(page, `data-key="m1999 2000"`) && strings.Contains(page, ">2000<")
		})
		if rows := strings.Count(page, `<tr role="row" data-key=`); rows != maxRows {
			t.Errorf("%d rows", rows)
		}
		if !strings.Contains(page, `data-key="m1999 2000"`) || !strings.Contains(page, "and 1800 more members") || len(page) > 700_000 {
			t.Errorf("the page of %d members: %d bytes; it must show who leads, and how many are not listed", n, len(page))
		}
		_, page = b.get("/?group=big&find=m012")
		if rows := strings.Count(page, `<tr role="row" data-key=`); rows != 10 || !strings.Contains(page, `data-key="m0123 124"`) {
			t.Errorf("looked for: %d rows", rows)
		}
	})
}

// With buckets it is seen which are whose, and that only those that change hands stand still.
func TestBuckets(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		s.part = partition.Config{Buckets: 12}
		s.member("workers", "a", "", nil)
		s.member("workers", "b", "", nil)
		time.Sleep(4 * lease)
		v := s.browser().view("group=workers")
		v.shows("summary", `2 <span class="quiet">of 12 buckets</span>`)
		v.shows("shares", "6 buckets", `aria-label="12 buckets in order, each in the colour of its owner"`)
		v.shows("members", `6 <span class="quiet">of 12</span>`)
		s.member("workers", "c", "", nil)
		v.shows("timeline", "3 shares, generation ", "4 of 12 buckets moved")
		v.shows("members", `4 <span class="quiet">of 12</span>`)
		v.close()
		g := &group{settled: &wire.Settled{Phase: wire.Settling, Buckets: 8, Places: []wire.Place{{ID: "a"}, {ID: "b"}}, Owners: []int{0, 0, 1, -1, 1, 1, 0, 1}, Moving: []int{4}}, colours: map[string]int{}}
		l := g.shares(time.Now())
		if got := fmt.Sprint(l[0].Runs, l[0].Buckets, l[0].Pending, l[1].Runs, l[1].Buckets, l[1].Pending); got !=
			"[{0.000% 25.000%} {75.000% 12.500%}] 3 false [{25.000% 12.500%} {50.000% 25.000%} {87.500% 12.500%}] 4 true" {
			t.Errorf("drawn %s", got)
		}
	})
}

// Groups beyond the bound are counted, not followed.
func TestManyGroups(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		ns := s.e.Namespace()
		js, err := s.e.Conn(ns).JetStream()
		if err != nil {
			t.Fatal(err)
		}
		for i := range maxGroups + 5 {
			if _, err := js.Publish(wire.KVSubject("default", wire.LeaderKey(fmt.Sprintf("g%d", i))), wire.Encode(&wire.Leader{V: 1, ID: "a", Params: wire.Params{LeaseMS: 3000}})); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		_, page := s.browser().get("/")
		if n := strings.Count(page, "<li data-key="); n != maxGroups || !strings.Contains(page, "and 5 more groups, which are not followed") {
			t.Errorf("%d groups listed\n%s", n, page[len(page)-600:])
		}
	})
}

// Only the groups that were named are shown, and heard.
func TestOnlyGroups(t *testing.T) {
	run(t, Config{Groups: []string{"valves"}}, func(s *scene) {
		s.member("workers", "a", "", nil)
		s.member("valves", "v", "", nil)
		time.Sleep(3 * lease)
		_, page := s.browser().get("/")
		if !strings.Contains(page, "valves") || strings.Contains(page, "workers</") {
			t.Errorf("groups that were not named are shown:\n%s", page)
		}
		if strings.Contains(page, "Choose a group.") {
			t.Error("one group alone need not be chosen")
		}
	})
}

// A group that has ended is shown for an hour, and then forgotten.
func TestGroupEnds(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		_, g := s.member("workers", "a", "", nil)
		time.Sleep(3 * lease)
		if err := g.Leave(s.ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * lease)
		b := s.browser()
		if _, page := b.get("/?group=workers"); !strings.Contains(page, "<b>a</b> left") || !strings.Contains(page, "<b>a</b> resigned") || !strings.Contains(page, ">gone<") {
			t.Errorf("just ended:\n%s", page)
		}
		s.d.hub.tick(time.Now().Add(remembered - time.Minute))
		if _, page := b.get("/"); !strings.Contains(page, "workers") {
			t.Errorf("almost an hour later:\n%s", page)
		}
		js, err := s.nc.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(wire.KVSubject("default", wire.SettledKey("workers")), nil); err != nil { // as if it had expired
			t.Fatal(err)
		}
		time.Sleep(lease)
		s.d.hub.tick(time.Now().Add(remembered + time.Minute))
		if _, page := b.get("/"); !strings.Contains(page, "No groups yet.") {
			t.Errorf("more than an hour later:\n%s", page)
		}
	})
}

// A viewer that does not take what it is sent is let go, and its seat is free again.
func TestSlowViewer(t *testing.T) {
	run(t, Config{Viewers: 1}, func(s *scene) {
		s.member("workers", "a", "", nil)
		time.Sleep(3 * lease)
		near, err := s.pipe.dial(s.ctx, "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		if _, err := near.Write([]byte("GET /events?group=workers HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(patience / 2)
		b := s.browser()
		if v := b.view("group=workers"); v.code != http.StatusServiceUnavailable {
			t.Errorf("the seat is taken: %d", v.code)
		}
		time.Sleep(patience)
		v := b.view("group=workers")
		v.shows("summary", "<b>a</b>")
		v.close()
	})
}

// Terms, and what lies between them, as their records are heard.
func TestTimeLine(t *testing.T) {
	run(t, Config{}, func(s *scene) {
		s.e.Namespace()
		time.Sleep(lease) // it runs
		a, ga := s.member("workers", "a", "", nil)
		time.Sleep(lease)
		b, _ := s.member("workers", "b", "", nil)
		time.Sleep(lease)
		s.member("workers", "c", "", nil)
		time.Sleep(5 * lease)
		if err := ga.StepDown(s.ctx, "b"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * lease)
		s.e.Kill(a) // it leads no more: nothing moves on this line
		time.Sleep(5 * lease)
		s.e.Kill(b)
		time.Sleep(3 * lease)
		p := s.d.page(query{Group: "workers"}, time.Now())
		var c = p.Group.Chart
		labels := []string{}
		for _, l := range c.Leaders {
			labels = append(labels, l.Class+" "+l.Title[:1])
		}
		if got := strings.Join(labels, ", "); got != "term a, term b, nobody n, term c" {
			t.Errorf("the lane of leaders: %s", got)
		}
		if !strings.Contains(c.Summary, "3 members led, 1 gap without a leader") {
			t.Errorf("in words: %s", c.Summary)
		}
		kinds := []string{}
		for _, e := range p.Group.Events {
			if e.Kind != "settled" {
				kinds = append(kinds, e.Who+" "+strings.Split(e.Text, ",")[0])
			}
		}
		if got := strings.Join(kinds, "; "); got != "b expired: its lease ran out unheard; c leads; b was not heard for its lease; a expired: its lease ran out unheard; b leads; a stepped down; c joined; b joined; a leads; a joined" {
			t.Errorf("the list: %s", got)
		}
	})
}
