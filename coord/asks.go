package coord

import (
	"context"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
)

// asker asks one question again and again, on one reply subject: an answer to an earlier try counts as well.
type asker struct {
	c   *Client
	sub *nats.Subscription
	try int
}

func (c *Client) newAsker() (*asker, error) {
	sub, err := c.nc.SubscribeSync(c.nc.NewInbox())
	if err != nil {
		return nil, err
	}
	return &asker{c: c, sub: sub}, nil
}

func (a *asker) close() { _ = a.sub.Unsubscribe() }

// ask makes one try. It waits a lease for the answer: by then another leads, if the leader has died.
func (a *asker) ask(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	a.try++
	m.Header.Set(headerTry, strconv.Itoa(a.try))
	m.Reply = a.sub.Subject
	missing := a.c.in.Store.Permission(m.Subject)
	if err := a.c.nc.PublishMsg(m); err != nil {
		return nil, err
	}
	one, cancel := context.WithTimeout(ctx, a.c.in.Lease)
	defer cancel()
	r, err := a.sub.NextMsgWithContext(one)
	switch {
	case err == nil && nobodyThere(r):
		return nil, nats.ErrNoResponders
	case err != nil && missing() != nil:
		return nil, missing()
	case err != nil && one.Err() != nil && ctx.Err() == nil:
		return nil, errUnanswered
	}
	return r, err
}

// nobodyThere reports the server's word that nobody listens.
func nobodyThere(m *nats.Msg) bool { return len(m.Data) == 0 && m.Header.Get("Status") == "503" }

// How many answers, and how many bytes of them, a member remembers for questions that are asked again.
const (
	keptAnswers = 1024
	keptBytes   = 4 << 20
)

// asks remembers the questions with more tries than one: those under way, and the last answers. It costs a bounded amount of memory.
type asks struct {
	mu    sync.Mutex
	known map[string]*nats.Msg // by id of the message; nil while it is under way
	order []string             // of those answered, the oldest first
	bytes int
}

// begin notes a question. known: it is under way, or was answered with what is returned.
func (a *asks) begin(id string) (answer *nats.Msg, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer, known = a.known[id]
	if !known {
		if a.known == nil {
			a.known = map[string]*nats.Msg{}
		}
		a.known[id] = nil
	}
	return answer, known
}

// forget takes a question back that is not handled after all.
func (a *asks) forget(m *nats.Msg) {
	if m.Header.Get(headerTry) == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if id := m.Header.Get(headerID); a.known[id] == nil {
		delete(a.known, id)
	}
}

// answer remembers what a question was answered with.
func (a *asks) answer(m, r *nats.Msg) {
	if m.Header.Get(headerTry) == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	id := m.Header.Get(headerID)
	if _, ok := a.known[id]; !ok {
		return
	}
	a.known[id] = r
	a.order = append(a.order, id)
	a.bytes += cost(r)
	for len(a.order) > keptAnswers || a.bytes > keptBytes {
		old := a.order[0]
		a.order = a.order[1:]
		a.bytes -= cost(a.known[old])
		delete(a.known, old)
	}
}

// cost is about what a kept answer takes.
func cost(m *nats.Msg) int { return len(m.Data) + envelope }
