package dashboard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nuid"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/vote"
)

// What is done through the page takes two steps, with plain forms: a page that says exactly what will happen, and to whom, and the form on it that has it
// done. What was confirmed is what is done: the term with that token, that incarnation of the member.

// Bounds of what is done through the page.
const (
	maxRunning  = 32 // at a time
	maxActs     = 256
	longestVote = 10 * time.Minute
	usualVote   = 30 * time.Second
)

// acts are the actions of late, with their results.
type acts struct {
	mu      sync.Mutex
	tasks   sync.WaitGroup
	changes uint64
	news    chan struct{} // closed at the next change
	running int
	all     map[string]*notice
	order   []string // oldest first
	over    bool
}

// A notice is what came of an action.
type notice struct {
	Running bool
	Failed  bool
	Text    string
	Group   string
}

func (a *acts) init() { a.all, a.news = map[string]*notice{}, make(chan struct{}) }

// touch says that something has changed. The lock is held.
func (a *acts) touch() {
	a.changes++
	close(a.news)
	a.news = make(chan struct{})
}

// changed is closed at the next change.
func (a *acts) changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.news
}

func (a *acts) version() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changes
}

func (a *acts) notice(id string) *notice {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.all[id]; n != nil {
		c := *n
		return &c
	}
	return nil
}

// wait waits for those that are under way: their contexts end by themselves.
func (a *acts) wait() {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	a.tasks.Wait()
}

// begin keeps an action with what is said while it runs; false if there are too many.
func (a *acts) begin(group, text string) (id string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || a.running >= maxRunning {
		return "", false
	}
	id = nuid.Next()
	a.running++
	a.tasks.Add(1)
	a.touch()
	a.all[id] = &notice{Running: true, Text: text, Group: group}
	a.order = append(a.order, id)
	if len(a.order) > maxActs {
		delete(a.all, a.order[0])
		a.order = slices.Delete(a.order, 0, 1)
	}
	return id, true
}

func (a *acts) ended(id, text string, failed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	a.touch()
	if n := a.all[id]; n != nil {
		n.Running, n.Failed, n.Text = false, failed, text
	}
	a.tasks.Done()
}

// A question is the page that asks whether something is meant.
type question struct {
	*page
	Title  string
	About  []string
	Action string            // address of the form
	Fields map[string]string // hidden
	Token  string
	Button string
	Back   string
}

// subject is the group and what is known of it, or an answer that there is none.
func (d *Dashboard) subject(w http.ResponseWriter, r *http.Request) (*page, bool) {
	q := query{Group: r.FormValue("group"), Span: spans[0].Key}
	p := d.page(q, time.Now())
	if q.Group == "" || p.Group == nil {
		d.refuse(w, http.StatusNotFound, "There is no such group.")
		return nil, false
	}
	return p, true
}

func (d *Dashboard) ask(w http.ResponseWriter, r *http.Request, q question) {
	q.Token, q.Back = d.bind(w, r), q.page.Query.with("", "")
	d.write(w, http.StatusOK, "question", q)
}

// do has fn done, waits for it for a moment, and sends the browser back to the group, with the result or with word that it is under way.
func (d *Dashboard) do(w http.ResponseWriter, r *http.Request, group, what string, most time.Duration, fn func(context.Context, *coord.Client) (string, error)) {
	d.hub.mu.Lock()
	g := d.hub.groups[group]
	var c *coord.Client
	if g != nil {
		c = g.client
	}
	d.hub.mu.Unlock()
	if c == nil {
		d.refuse(w, http.StatusServiceUnavailable, "The group is not there any more.")
		return
	}
	id, ok := d.acts.begin(group, what+": under way.")
	if !ok {
		d.refuse(w, http.StatusServiceUnavailable, "Too many actions are under way: come again in a moment.")
		return
	}
	by := remote(r)
	over := make(chan struct{})
	go func() {
		defer close(over)
		// Not the request's context: who asked may close the page, and it goes on.
		ctx, cancel := context.WithTimeout(d.life, most)
		defer cancel()
		text, err := fn(ctx, c)
		if err != nil {
			text = said(err)
		}
		d.cfg.Audit(fmt.Sprintf("%s asked: %s in group %q: %s", by, what, group, text))
		d.acts.ended(id, what+": "+text+".", err != nil)
	}()
	select {
	case <-over:
	case <-time.After(time.Second):
	}
	http.Redirect(w, r, "/?"+url.Values{"group": {group}, "act": {id}}.Encode(), http.StatusSeeOther)
}

// said is an error for people.
func said(err error) string {
	switch {
	case errors.Is(err, coord.ErrSuccessor):
		return "the member that was named cannot lead now"
	case errors.Is(err, coord.ErrGone):
		return "it was gone already: nothing was done"
	case errors.Is(err, coord.ErrNoMember):
		return "it is no member any more"
	case errors.Is(err, coord.ErrNoLeader):
		return "there is no leader now who could do it"
	case errors.Is(err, quorate.ErrNotQuorate):
		return "the group is not quorate"
	case errors.Is(err, vote.ErrNoVoters):
		return "nobody in the group votes"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time: it may have been heard or not"
	case errors.Is(err, quorate.ErrClosed), errors.Is(err, context.Canceled):
		return "the page has ended: it may have been heard or not"
	}
	return printable(err.Error())
}

// printable makes any text one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

func (d *Dashboard) serveStepDown(w http.ResponseWriter, r *http.Request) {
	p, ok := d.subject(w, r)
	if !ok {
		return
	}
	g := p.Group
	to := r.FormValue("to")
	if to != "" && wire.CheckID(to) != nil {
		d.refuse(w, http.StatusBadRequest, "There is no such member.")
		return
	}
	if r.Method != http.MethodPost {
		if g.Leader == "" {
			d.refuse(w, http.StatusConflict, "The group "+g.Name+" has no leader now.")
			return
		}
		next := "Whoever is next in the queue leads then."
		if to != "" {
			next = to + " leads then."
		}
		d.ask(w, r, question{page: p, Title: "Have " + g.Leader + " step down?", Action: "/step-down", Button: "Step down",
			About: []string{g.Leader + " is asked to hand over the leadership of the group " + g.Name + ". Work that only the leader does is asked to return first. " + next,
				"Members keep their shares of the work."},
			Fields: map[string]string{"group": g.Name, "term": strconv.FormatUint(g.Token, 10), "leader": g.Leader, "to": to}})
		return
	}
	token, err := strconv.ParseUint(r.PostFormValue("term"), 10, 64)
	who := r.PostFormValue("leader")
	if err != nil || wire.CheckID(who) != nil {
		d.refuse(w, http.StatusBadRequest, "That form is not whole.")
		return
	}
	d.do(w, r, g.Name, "step-down of "+who, d.cfg.Timeout, func(ctx context.Context, c *coord.Client) (string, error) {
		if err := c.StepDownTerm(ctx, token, to); err != nil {
			return "", err
		}
		for {
			l, err := c.Leader(ctx)
			switch {
			case err == nil && l.Holder == who && l.Token > token:
				return who + " leads again, token " + strconv.FormatUint(l.Token, 10), nil
			case err == nil && l.Holder != "" && l.Token > token:
				return l.Holder + " leads now, token " + strconv.FormatUint(l.Token, 10), nil
			}
			select {
			case <-ctx.Done():
				return "it was asked to, but nobody leads anew yet: its work may not have returned", nil
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

func (d *Dashboard) serveEvict(w http.ResponseWriter, r *http.Request) {
	p, ok := d.subject(w, r)
	if !ok {
		return
	}
	g := p.Group
	id := r.FormValue("member")
	inc, err := strconv.ParseUint(r.FormValue("incarnation"), 10, 64)
	if wire.CheckID(id) != nil || err != nil {
		d.refuse(w, http.StatusBadRequest, "There is no such member.")
		return
	}
	if r.Method != http.MethodPost {
		about := []string{id + " is out of the group " + g.Name + " at once: its process is told, and does not come back by itself. Its share of the work goes to the others once it has let go, or its lease has run out.",
			"What has crashed need not be evicted: it is out by itself after two leases."}
		if id == g.Leader {
			about = append(about, id+" leads the group: another takes over.")
		}
		d.ask(w, r, question{page: p, Title: "Evict " + id + "?", Action: "/evict", Button: "Evict " + id, About: about,
			Fields: map[string]string{"group": g.Name, "member": id, "incarnation": strconv.FormatUint(inc, 10)}})
		return
	}
	d.do(w, r, g.Name, "eviction of "+id, d.cfg.Timeout, func(ctx context.Context, c *coord.Client) (string, error) {
		if err := c.EvictIncarnation(ctx, id, inc); err != nil {
			return "", err
		}
		return id + " is no member any more", nil
	})
}

// proposal reads the form of a vote.
func proposal(r *http.Request) (p vote.Proposal, most time.Duration, wrong string) {
	p.Topic, p.Kind = strings.TrimSpace(r.FormValue("topic")), vote.Kind(r.FormValue("kind"))
	if p.Kind == "some" {
		p.Kind = vote.Kind(r.FormValue("number"))
		if n, err := strconv.Atoi(string(p.Kind)); err != nil || n < 1 || n > 10000 {
			return p, 0, "Say how many must say yes: a number from 1 to 10000."
		}
	}
	seconds, err := strconv.Atoi(cmp.Or(r.FormValue("seconds"), strconv.Itoa(int(usualVote/time.Second))))
	most = time.Duration(seconds) * time.Second
	switch {
	case p.Topic == "":
		return p, 0, "Say what is voted on."
	case len(p.Topic) > wire.MaxTopic || !utf8.ValidString(p.Topic):
		return p, 0, "The question is too long: at most " + strconv.Itoa(wire.MaxTopic) + " bytes of text are allowed."
	case p.Kind != vote.Majority && p.Kind != vote.TwoThirds && p.Kind != vote.Consensus && r.FormValue("kind") != "some":
		if n, err := strconv.Atoi(string(p.Kind)); err != nil || n < 1 || n > 10000 {
			return p, 0, "There is no such rule."
		}
	}
	if err != nil || seconds < 1 || most > longestVote {
		return p, 0, "Say how long it may take: from 1 to 600 seconds."
	}
	return p, most, ""
}

func (d *Dashboard) serveVote(w http.ResponseWriter, r *http.Request) {
	p, ok := d.subject(w, r)
	if !ok {
		return
	}
	g := p.Group
	prop, most, wrong := proposal(r)
	if wrong != "" {
		d.refuse(w, http.StatusBadRequest, wrong)
		return
	}
	if r.Method != http.MethodPost {
		d.ask(w, r, question{page: p, Title: "Put this to the vote?", Action: "/vote", Button: "Put to the vote",
			About: []string{"“" + prop.Topic + "”", "It is put to " + plural(g.Voters, "member") + " of the group " + g.Name + " that vote" + map[bool]string{true: "s", false: ""}[g.Voters == 1] +
				"; yes needs " + rule(string(prop.Kind)) + " of them. It is decided as soon as no further answer can change it, and after " + short(most) + " at the latest."},
			Fields: map[string]string{"group": g.Name, "topic": prop.Topic, "kind": string(prop.Kind), "seconds": strconv.Itoa(int(most / time.Second)), "ballot": nuid.Next()}})
		return
	}
	// The id comes with the form: one that is sent twice is one ballot.
	if prop.ID = r.PostFormValue("ballot"); wire.CheckBallot(prop.ID) != nil {
		d.refuse(w, http.StatusBadRequest, "That form is not whole.")
		return
	}
	d.do(w, r, g.Name, "vote on “"+firstRunes(printable(prop.Topic), 60)+"”", most, func(ctx context.Context, c *coord.Client) (string, error) {
		v, err := vote.Propose(ctx, c, prop)
		switch {
		case err != nil:
			return "", err
		case v.Verdict == vote.Unknown:
			return "the verdict is unknown: " + printable(v.Why), nil
		}
		return fmt.Sprintf("%s: %d yes, %d no, %d abstain of %d", strings.ReplaceAll(v.Verdict, "-", " "), v.Yes, v.No, v.Abstain, v.Of), nil
	})
}
