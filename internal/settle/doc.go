// Package settle is the pure machine of a group's leader: who is a member, and which settled generation gives whom which
// place (design 4.2 and 4.3; guarantees M1-M3, P1, P2, P4).
//
// It lives below coord, not in partition, because membership cannot be separated from it: the member timeout in force
// travels in the settled record, and no heartbeat may be answered before that record carries the leader's own token. So
// every leader serves what its group needs, also when its own program uses none of it.
//
// The hand-over between generations is the two-phase revocation of KIP-429 (Kafka's cooperative rebalancing) with the
// leases that it lacks: nobody is granted a new generation before every holder of the old one has acknowledged the new
// number or its lease has run out by the leader's count.
//
// One machine serves one term. The rules, by number, as the code cites them:
//
//	S1  no heartbeat is answered before `settled` was rewritten by compare-and-set with this term's token
//	S2  whoever was a member before this term is waited for from the answer to the acquiring write on, for the larger of
//	    the own member timeout and the recorded one; the larger stays recorded until a generation of this term has settled
//	S3  the leader counts a grant from its receipt; the member from before its sending, and a tenth less
//	S4  holders are the recorded places, in the roster or not
//	S5  a holder has let go when that incarnation acknowledged the generation by number, left, or its lease ran out here
//	S6  from before `settled` is sent nothing of the generation before is granted again
//	S7  a new incarnation is granted nothing until the old one, a member still or evicted, has left or its lease has run out
//	    here; its own heartbeats keep it alive meanwhile
//	S8  a heartbeat older than one already heard of the same incarnation is dropped
//	S9  a leader that ran late, or does not hear its own heartbeat, accuses nobody; afterwards every timeout starts again
//	S10 if the record is missing though the group is not new, nothing is granted for one member timeout
//	S11 KV is written before anyone is told
//	S12 who has not acknowledged within the acknowledgement timeout keeps its membership, but gets no place until it does;
//	    every reply tells it what it owes
//	S13 below the minimum size nothing is settled and no share is granted: by a term that falls below, from that moment on, or that
//	    began so. Such a term hears heartbeats all the same, since nobody else counts the members, and asks to be turned once enough are
//	    heard in it; a term that was turned to leading is judged half a lease later, so that no stale read turns it back
//	S14 a term that was turned from another of the same process goes on with what that one knew: nobody else can have granted
//	    anything in between. S2 is for those that it did not know
//	S15 the place of a member that expired with a return window is kept for it, granted to nobody: its absence begins no generation
//	S16 with buckets the settling record names those that move, and only they are let go of. What a holder keeps is granted to it all the while, under
//	    the new number once it has acknowledged that, and is its own in the settled record, with the token that it had (buckets.go). Which
//	    move is a pure function of who has what: even by weight, spread over zones, and no more than have to (spread.go)
//	S17 an id whose places did not last gets its next one only after a growing time, in which the others have its work and their peace (flap.go)
//	S18 what a generation's record says is told by answering the last heartbeat of each member again: nobody needs to ask. It counts from that
//	    heartbeat, on both sides
//	S19 who has let go of the generation before is answered once the next one stands, or a little later, if nothing else is to be said
package settle
