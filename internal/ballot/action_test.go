package ballot

import "testing"

// The leader's side of actions.
func TestActions(t *testing.T) {
	for _, c := range []struct{ name, text string }{
		{"a yes names who agreed", `
			@0s propose B majority a,b,c left=5s at=10s
			    read B
			@0s read B none
			    broadcast B r1 majority of=3 left=4.5s
			@0s vote B r1 b yes
			@0s vote B r1 c yes
			    seal B yes by n1 2-0-0 of 3 silent=a agreed=b,c
			@0s sealed B yes
			    answer p1 B yes by n1
			    announce B yes by n1
		`},
		{"the clock", `
			@3s clock
			    answer k1 clock 3s
			@4s suspend 2s
			@5s clock from=k2
			    answer k2 clock 7s
		`},
		{"T7: a yes is sealed only while the instant is lease/6 away: voting ends there", `
			@0s propose B majority a,b,c left=60s at=10s
			    read B
			@0s read B none
			    broadcast B r1 majority of=3 left=9.5s
			@9.5s-1ns vote B r1 b yes
			    broadcast B r1 majority of=3 left=1ms
			@9.5s vote B r1 c yes
			    seal B timed-out by n1 1-0-0 of 3 silent=a,c agreed=b
			@9.6s sealed B yes
			    answer p1 B timed-out by n1
			    announce B timed-out by n1
		`},
		{"T7: and the last vote may come just before that", `
			@0s propose B majority a,b,c left=60s at=10s
			    read B
			@0s read B none
			    broadcast B r1 majority of=3 left=9.5s
			@9s vote B r1 b yes
			    broadcast B r1 majority of=3 left=500ms
			@9.5s-1ns vote B r1 c yes
			    seal B yes by n1 2-0-0 of 3 silent=a agreed=b,c
			@11s sealed B unknown                            // a sealed yes stays yes
			    read B
			@11s read B none
			    seal B yes by n1 2-0-0 of 3 silent=a agreed=b,c
			@11.1s sealed B yes
			    answer p1 B yes by n1
			    announce B yes by n1
		`},
		{"T7: a suspend that the monotonic clock does not show", `
			@0s propose B majority a,b,c left=60s at=10s
			    read B
			@0s read B none
			    broadcast B r1 majority of=3 left=9.5s
			@0.1s vote B r1 b yes
			@0.1s suspend 9.8s
			@0.1s vote B r1 c yes
			    seal B timed-out by n1 2-0-0 of 3 silent=a agreed=b,c
		`},
		{"T7: an instant too near can be no yes, and nobody is asked", `
			@0s propose B majority a,b,c left=5s at=500ms
			    read B
			@0s read B none
			    seal B timed-out by n1 0-0-0 of 3 silent=a,b,c agreed=
		`},
		{"an instant on another leader's clock", `
			@0s propose B majority a,b,c left=5s at=10s token=3
			    read B
			@0s read B none
			    answer p1 error clock
			@0s propose B majority a,b,c left=5s at=10s token=3 from=p2
			    read B
			@0s read B yes by n0 at=10s                      // a sealed verdict is told all the same
			    answer p2 B yes by n0
			@1s propose B majority a,b,c left=5s at=12s from=p3
			    answer p3 B yes by n0
			@1s propose B majority a,b,c left=5s at=12s wall=another from=p4
			    answer p4 error bad
			@1s propose B majority a,b,c left=5s from=p5
			    answer p5 error bad
		`},
		{"what cannot be", `
			@0s propose B majority a,b,c left=5s at=1801s
			    read B
			@0s read B none
			    answer p1 error bad
			@0s propose B majority a,b,c left=5s at=10s tol=0s from=p2
			    answer p2 error bad
			@0s propose B majority a,b,c left=5s at=10s tol=61s from=p3
			    answer p3 error bad
			@0s propose B majority a,b,c left=5s at=0s-2000s from=p4
			    answer p4 error bad
			@0s outcome B.C
			    answer o1 error bad
		`},
		{"T8: cancelled before the seal, it is timed-out, and nobody needs to be told", `
			@0s propose B majority a,b,c left=5s at=10s
			    read B
			@0s read B none
			    broadcast B r1 majority of=3 left=4.5s
			@1s cancel B
			    broadcast B r1 majority of=3 left=3.5s
			    seal B timed-out by n1 0-0-0 of 3 silent=a,b,c agreed=
			@1s sealed B yes
			    answer p1 B timed-out by n1
			    answer c1 B timed-out by n1
			    announce B timed-out by n1
		`},
		{"T8: cancelled while a yes is being sealed", `
			@0s propose B 1 a,b,c left=5s at=10s
			    read B
			@0s read B none
			    broadcast B r1 1 of=3 left=4.5s
			@1s-1ns vote B r1 a yes
			    broadcast B r1 1 of=3 left=3.501s
			    seal B yes by n1 1-0-0 of 3 silent=b,c agreed=a
			@1s cancel B
			@1s sealed B yes
			    answer p1 B yes by n1
			    answer c1 B yes by n1
			    announce B yes by n1
			    stop B
		`},
		{"T8: cancelled after the seal, here or by the leader before", `
			@0s cancel B
			    read B
			@0s read B yes by n0 at=10s
			    answer c1 B yes by n0
			    stop B
			@1s cancel B from=c2
			    answer c2 B yes by n0
			    stop B
		`},
		{"T8: a verdict that is no action is not stopped", `
			@0s cancel B
			    read B
			@0s read B yes by n0
			    answer c1 B yes by n0
		`},
		{"reports are kept for who asks, and asked for again", `
			@0s outcome B                                    // a new leader, which has got none
			    read B
			@0s read B yes by n0 at=10s
			    answer o1 B yes by n0
			    announce B yes by n0
			@1s report B a done
			    ack r-a
			@1s report B a failed                            // it cannot have been both
			    ack r-a
			@1s report B a#2 done                            // nobody of the electorate
			    ack r-a
			@1s report B b finished                          // no word for it
			    ack r-b
			@1s outcome B from=o2
			    answer o2 B yes by n0 a:done
			    announce B yes by n0
			@1.1s outcome B from=o3                          // not at each question
			    answer o3 B yes by n0 a:done
			@1.2s report B b late
			    ack r-b
			@9s outcome B from=o4                            // all have reported
			    answer o4 B yes by n0 a:done b:late
			@9s report C b late                              // what is not known here is acknowledged too: who asks for it has heard it
			    ack r-b
		`},
		{"the outcome of nothing", `
			@0s outcome B
			    read B
			@0s read B none
			    answer o1 error no-ballot
			@0s outcome C from=o2
			    read C
			@0s read C marker
			    answer o2 unknown
			@0s outcome D from=o3
			    read D
			@0s read D failed
			@0.75s tick
			    read D
			@0.9375s tick
			    answer o3 unknown
		`},
	} {
		t.Run(c.name, func(t *testing.T) { newScript(t, 5).run(c.text) })
	}
}
