package coord

import (
	"testing"

	"github.com/nats-io/nats.go"
)

// A question that comes while its handler ends is not under way for ever: another try of it would never be answered.
func TestAskWhileHandlerEnds(t *testing.T) {
	ended := &topic{queue: make(chan *nats.Msg, queued), done: make(chan struct{})}
	close(ended.done)
	g := &Group{Client: &Client{}, topics: map[string]*topic{"work": ended}} // as deliver sees it just before it is taken out
	m := nats.NewMsg("quorate.x.g.y.member.a.work")
	m.Reply = "_INBOX.1"
	m.Header.Set(headerAsk, "1")
	m.Header.Set(headerTry, "1")
	m.Header.Set(headerID, "q")
	g.deliver(m)
	if _, known := g.asks.begin("q"); known || len(ended.queue) > 0 {
		t.Errorf("under way %v, %d waiting; want neither", known, len(ended.queue))
	}
}
