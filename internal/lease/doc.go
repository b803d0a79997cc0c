// Package lease is the pure machine of a leader election on one key of the bucket (design 4.1; guarantees L1-L5).
//
// It follows the lease of Gray and Cheriton (1989) with expiry observed by the candidates, as in client-go's
// leaderelection, not trusted to a server's clock; and adds what that lacks: a fencing token (the revision of the acquiring write), three
// outcomes for every write, deadlines that count from before sending, and a release that follows the end of the term.
//
// The machine reads no clock, imports no NATS and starts nothing: a shell (package leader) owns it in one goroutine,
// feeds it inputs with the [clock.Instant] at which they arrived, and carries out its effects in order. The same machine
// runs in the simulation of internal/sim, which searches for violations.
//
// The rules, by number, as the code cites them:
//
//	E1  a term is live strictly before sent + lease - margin, by whichever clock shows most; sent is read before sending
//	E2  a candidate waits the larger of its own lease and the record's, on the monotonic clock alone, since the answer
//	    that showed the current revision arrived
//	E3  an absent key is free at once only after a release by the author of the record it replaced, or if nothing was ever
//	    seen of it; anything else is waited for like a held key, at least 10 s if its record was never seen
//	E4  an unanswered renewal that a read finds counts from its own sending, known by its nonce
//	E5  a read older than a revision already seen proves nothing
//	E6  a term ends before its release is sent, and the release is sent only after the guarded work has returned
//	E7  a term once ended is never taken up again, whatever a read shows; what is found of it is undone by revision;
//	    nor is a write whose removal was sent: that may land long after
//	E8  a transient error never ends a term early; a proven loss always does, and a hint is no proof
//	E9  one write is in flight at a time
//	E10 a term is turned, quorate or not, by the process that holds it: it ends as by a soft end (E6), and in place of the release
//	    its own revision is written over; that revision is the token of a new term. An unanswered turn is an unanswered acquire (E4);
//	    after a refused one, or once the ended lease has run out, it is a candidate like any other
//	E11 a release may name a candidate: it tries at once, the others hold back lease/4 before their turn in the queue
package lease
