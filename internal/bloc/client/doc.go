// Package client is a client of bloc's HTTP API as bloc's own is, for the tests of the gateway: what it asks, when, and what it believes in between.
//
//	all := client.NewBeliefs(func(wrong string) { t.Error(wrong) })
//	c := client.New(all, "web-1", time.Second, client.Over(http.DefaultClient, "http://127.0.0.1:8989"))
//	c.Run(ctx)
//
// It was written from the behaviour of bloc 0.1.1 and its Python client: a question each interval, one at a time; an answer other than 200, or none
// within an interval, makes it unsettled; stopping deletes the session and does not wait long. [Beliefs] collects what all of them, and native
// members, act on, and says when two act on one share of the work.
//
// It promises nothing to users: it is no part of what they can import. All methods may be called from any goroutine, Run once.
package client
