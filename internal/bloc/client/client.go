package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Client does what bloc's own client does: it asks at once and then every interval, one question at a time; a question that is not
// answered within an interval, or not with 200, makes it unsettled; what it was told last it believes until then.
type Client struct {
	id       string
	interval time.Duration
	send     Send
	all      *Beliefs

	mu       sync.Mutex
	settled  bool
	index    int
	total    int
	codes    map[int]int // answers by status; 0: none in time
	statuses map[string]int
	since    time.Time // unsettled since
	worst    time.Duration
}

// Send makes one request with the header Bloc-Session-ID, and gives the status and the body of the answer. It is called by one goroutine at a time.
type Send func(ctx context.Context, method, path, id string) (int, []byte, error)

// New makes a client. What it believes is told to all.
func New(all *Beliefs, id string, interval time.Duration, send Send) *Client {
	return &Client{id: id, interval: interval, all: all, send: send, codes: map[int]int{}, statuses: map[string]int{}}
}

// ID is the session's id.
func (c *Client) ID() string { return c.id }

// Run is startService, until ctx ends.
func (c *Client) Run(ctx context.Context) {
	start := time.Now()
	c.mu.Lock()
	c.since = start
	c.mu.Unlock()
	for ctx.Err() == nil {
		c.heartbeat()
		// The next whole interval since the beginning, as LoopingCall counts.
		since := time.Since(start)
		next := start.Add(since - since%c.interval + c.interval)
		t := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

func (c *Client) heartbeat() {
	ctx, cancel := context.WithTimeout(context.Background(), c.interval)
	defer cancel()
	code, body, err := c.send(ctx, http.MethodGet, "/index", c.id)
	var content struct {
		Status       string
		Index, Total int
	}
	if err != nil {
		code = 0
	} else if code == http.StatusOK {
		err = json.Unmarshal(body, &content)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.codes[code]++
	c.statuses[content.Status]++
	was := c.settled
	c.settled = err == nil && code == http.StatusOK && content.Status == "SETTLED"
	if c.settled {
		c.index, c.total = content.Index, content.Total
		c.worst = max(c.worst, time.Since(c.since))
	} else if was {
		c.since = time.Now()
	}
	c.all.Set(c.id, c.settled, c.index, c.total)
	if c.settled {
		c.since = time.Now()
	}
}

// Stop is stopService.
func (c *Client) Stop() (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.all.Set(c.id, false, 0, 0)
	code, body, err := c.send(ctx, http.MethodDelete, "/session", c.id)
	if err != nil {
		return 0, err.Error()
	}
	return code, string(body)
}

// Get is get_index_total.
func (c *Client) Get() (index, total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.settled {
		return 0, 0
	}
	return c.index, c.total
}

// Codes counts the answers with that status; 0 is for none in time.
func (c *Client) Codes(status int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.codes[status]
}

// Said counts the answers SETTLED or SETTLING.
func (c *Client) Said(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.statuses[what]
}

// Unsettled gives the longest time that the client was unsettled since it was asked last; what goes on still does not count.
func (c *Client) Unsettled() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.worst
	c.worst = 0
	return d
}

// Beliefs is what clients and native members act on at this moment: it is wrong when two have one index, or
// different totals.
type Beliefs struct {
	wrong  func(string)
	mu     sync.Mutex
	now    map[string]Held
	past   []Held
	failed bool
	seen   int
}

// A Held is an index that somebody acted on.
type Held struct {
	ID           string
	Index, Total int       // the index counts from 1
	From, To     time.Time // To is zero while it goes on
}

// NewBeliefs makes one; wrong is called with what must not be, once at most for each kind.
func NewBeliefs(wrong func(string)) *Beliefs { return &Beliefs{wrong: wrong, now: map[string]Held{}} }

// Set says what one acts on from now on; index counts from 1.
func (b *Beliefs) Set(id string, settled bool, index, total int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	held, was := b.now[id]
	if was && (!settled || held.Index != index || held.Total != total) {
		held.To = now
		b.past = append(b.past, held)
		delete(b.now, id)
		was = false
	}
	if !settled {
		return
	}
	if !was {
		b.now[id] = Held{ID: id, Index: index, Total: total, From: now}
	}
	b.seen++
	for other, o := range b.now {
		if other != id && (o.Index == index || o.Total != total) && !b.failed {
			b.failed = true
			b.wrong(fmt.Sprintf("P2: %s: %s has %d of %d, %s has %d of %d", now.Format("15:04:05.000"), id, index, total, other, o.Index, o.Total))
		}
	}
	if index < 1 || index > total {
		b.wrong(fmt.Sprintf("%s has %d of %d", id, index, total))
	}
}

// Whole says whether all of n members hold an index.
func (b *Beliefs) Whole(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.now) != n {
		return false
	}
	for _, v := range b.now {
		if v.Total != n {
			return false
		}
	}
	return true
}

// Seen is how many times somebody was settled.
func (b *Beliefs) Seen() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen
}

func (b *Beliefs) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprint(b.now)
}

// All is what was held since the beginning, and is.
func (b *Beliefs) All() []Held {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := slices.Clone(b.past)
	for _, h := range b.now {
		l = append(l, h)
	}
	return l
}

// Over asks URLs over HTTP: the next one after an error, as behind a load balancer.
func Over(hc *http.Client, urls ...string) Send {
	n := 0
	return func(ctx context.Context, method, path, id string) (int, []byte, error) {
		fail := func(err error) (int, []byte, error) { n++; return 0, nil, err }
		r, err := http.NewRequestWithContext(ctx, method, urls[n%len(urls)]+path, nil)
		if err != nil {
			return fail(err)
		}
		r.Header["Bloc-Session-ID"] = []string{id} // spelled as bloc's client does
		resp, err := hc.Do(r)
		if err != nil {
			return fail(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return fail(err)
		}
		if resp.StatusCode != http.StatusOK {
			n++
		}
		return resp.StatusCode, body, nil
	}
}
