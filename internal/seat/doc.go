// Package seat is the pure machine of one incarnation of a member: its heartbeats, its membership lease, and the
// assignment and buckets it holds (design 4.2 and 4.3; guarantees M2, P2, P3).
//
// The rules, by number, as the code cites them:
//
//	H1  a grant counts from before the heartbeat that it answers was sent, a tenth of it less, by whichever clock shows most
//	H2  the time granted is the leader's, from the reply; the own setting never enters
//	H3  no reply of an older leader is taken, and none to a heartbeat sent before the last acknowledgement
//	H4  no generation below the highest acknowledged or held is ever taken, however late the reply
//	H5  a generation is acknowledged by its number, and only after the work of the one before has let go
//	H6  an assignment that ran out is not taken up again before its work has returned
//	H7  nothing granted counts before the incarnation's record is stored: the next leader could not know of it, and would
//	    let a second process in under the id at once (M2)
//	H8  a leader that says `quorate: false` has too few members: the assignment is let go of, and acknowledged by nothing; the same
//	    generation may be granted again once there are enough
//	H9  of buckets those that are kept are held on, to the same deadline, as part of the generation that is acknowledged; nothing is gained between
//	    the question to let go and the acknowledgement; what ran out, ran out altogether
//	H10 eight pokes are followed at once, then one each lease/48: a thousand members that answer each poke of a flood would
//	    be one
package seat
