package inner

import "sync"

// An Outbox publishes for a loop that has deadlines to keep: a connection holds its lock while it dials, and whoever
// publishes then waits for a second and more (measured against a stopped server). Sends keep their order; while the
// connection is stuck, what is more than the limit is dropped, so only what may be lost goes through here.
type Outbox struct {
	box  *Mailbox[func()]
	stop chan struct{}
	done sync.WaitGroup
}

// NewOutbox starts one.
func NewOutbox(limit int) *Outbox {
	o := &Outbox{box: NewMailbox[func()](limit), stop: make(chan struct{})}
	o.done.Go(func() {
		for {
			select {
			case <-o.box.C():
				for _, send := range o.box.Take() {
					send()
				}
			case <-o.stop:
				for _, send := range o.box.Take() {
					send()
				}
				return
			}
		}
	})
	return o
}

// Send has fn called soon, on the outbox's goroutine.
func (o *Outbox) Send(fn func()) { o.box.Offer(fn) }

// Do has fn called soon, like Send, and drops it never: for subscribing and its like.
func (o *Outbox) Do(fn func()) { o.box.Put(fn) }

// Close sends what waits and returns when the goroutine is gone. It is called once.
func (o *Outbox) Close() {
	close(o.stop)
	o.done.Wait()
}
