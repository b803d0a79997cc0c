package seat

import (
	"testing"

	"github.com/quorate/quorate/internal/wire"
)

// share is a reply that grants an assignment with buckets, of six.
func share(seq, token, gen uint64, buckets []int, tokens ...uint64) Reply {
	r := reply(seq, token, gen, 0, 2, 0)
	r.Reply.Of, r.Reply.Count, r.Reply.Buckets, r.Reply.Tokens, r.Reply.Map = 6, len(buckets), buckets, tokens, wire.MapXXH64
	return r
}

// part is one that grants what is kept while a generation is being settled.
func part(seq, token, gen uint64, buckets []int, tokens ...uint64) Reply {
	r := share(seq, token, gen, buckets, tokens...)
	r.Reply.Part, r.Reply.Settling, r.Reply.Index, r.Reply.Total = true, gen, 0, 0
	return r
}

// asking is one that grants on, and asks for all but some buckets.
func asking(r Reply, settling uint64, keep ...int) Reply {
	r.Reply.Settling, r.Reply.Keep = settling, keep
	return r
}

// known is a reply that leaves the list out, as the member has it.
func known(r Reply) Reply {
	r.Reply.Buckets, r.Reply.Tokens = nil, nil
	return r
}

// cut holds buckets 1, 2 and 4 of 6 in generation 7, and has been asked to let go of 2 for generation 9.
var cut = []step{
	{at: 0, in: Tick{}, want: "send 1 ack 0 hold 0"},
	{at: 100 * milli, in: share(1, 5, 7, []int{1, 2, 4}, 3, 7, 7), want: "member until 5.4s; gained [{1 3} {2 7} {4 7}] until 5.4s; granted 7 0/2 [{1 3} {2 7} {4 7}] of 6 until 5.4s"},
	{at: 500 * milli, in: Tick{}, want: "send 2 ack 7 hold 7"},
	{at: 600 * milli, in: asking(known(share(2, 5, 7, []int{1, 2, 4})), 9, 1, 4), want: "member until 5.9s; extended until 5.9s; settling 9; revoke 7 for 9 keeping [1 4]"},
}

// split has let go of bucket 2.
var split = with(cut, step{at: 700 * milli, in: LetGo{For: 9}, want: "lost [{2 7}]; released 7; kept for 9; send 3 ack 9 hold 0 part 9"})

// TestBuckets: H9, P2, P3. What is kept is held over the generation, with its token; what moves is let go of before that is acknowledged.
func TestBuckets(t *testing.T) {
	t.Run("over a generation", func(t *testing.T) {
		play(t, config, with(split,
			step{at: 800 * milli, in: known(part(3, 5, 9, []int{1, 4})), want: "member until 6.1s; extended until 6.1s"},
			step{at: 1200 * milli, in: Tick{}, want: "send 4 ack 9 hold 0 part 9"},
			step{at: 1300 * milli, in: share(4, 5, 9, []int{1, 4, 5}, 3, 7, 9), want: "member until 6.6s; gained [{5 9}] until 6.6s; granted 9 0/2 [{1 3} {4 7} {5 9}] of 6 until 6.6s"},
			step{at: 1700 * milli, in: Tick{}, want: "send 5 ack 9 hold 9"},
			step{at: 1750 * milli, in: known(part(4, 5, 9, []int{1, 4})), want: "member until 6.6s; extended until 6.6s"}, // late
			step{at: 1800 * milli, in: known(share(5, 5, 9, []int{1, 4, 5})), want: "member until 7.1s; extended until 7.1s"},
		))
	})
	t.Run("not acknowledged before what moves is let go of", func(t *testing.T) {
		play(t, config, with(cut, step{at: 1100 * milli, in: Tick{}, want: "send 3 ack 7 hold 7"}))
	})
	t.Run("a late reply gives nothing back", func(t *testing.T) { // H3, H4
		play(t, config, with(split,
			step{at: 800 * milli, in: share(2, 5, 7, []int{1, 2, 4}, 3, 7, 7), want: ""},
			step{at: 800 * milli, in: share(3, 6, 7, []int{1, 2, 4}, 3, 7, 7), want: "member until 6.1s"},
		))
	})
	t.Run("nothing is gained by who is asked to let go", func(t *testing.T) {
		play(t, config, with(split,
			step{at: 1200 * milli, in: Tick{}, want: "send 4 ack 9 hold 0 part 9"},
			step{at: 1300 * milli, in: asking(known(part(4, 5, 9, []int{1, 4})), 11, 1), want: "member until 6.6s; extended until 6.6s; settling 11; revoke 9 for 11 keeping [1]"},
			step{at: 1350 * milli, in: share(3, 5, 9, []int{1, 4, 5}, 3, 7, 9), want: "member until 6.6s"},
			step{at: 1400 * milli, in: LetGo{For: 9}, want: ""}, // an answer to an older question
			step{at: 1450 * milli, in: LetGo{For: 11}, want: "lost [{4 7}]; kept for 11; send 5 ack 11 hold 0 part 11"},
		))
	})
	t.Run("all is let go of", func(t *testing.T) {
		play(t, config, with(cut, step{at: 700 * milli, in: LetGo{}, want: "released 7; send 3 ack 9 hold 0"},
			step{at: 800 * milli, in: part(3, 5, 9, []int{1, 4}, 3, 7), want: "member until 6.1s; gained [{1 3} {4 7}] until 6.1s"}))
	})
	t.Run("what ran out waits for all work", func(t *testing.T) { // H6
		play(t, config, with(split,
			step{at: 5900 * milli, in: Tick{}, want: "lapsed 9 at 5.9s; send 4 ack 9 hold 0"},
			step{at: 6 * second, in: part(4, 5, 9, []int{1, 4}, 3, 7), want: "member until 11.3s"},
			step{at: 6100 * milli, in: LetGo{For: 9}, want: ""},
			step{at: 6200 * milli, in: LetGo{}, want: ""},
			step{at: 6300 * milli, in: part(4, 5, 9, []int{1, 4}, 3, 7), want: "member until 11.3s; gained [{1 3} {4 7}] until 11.3s"},
		))
	})
	t.Run("a reply without the list, to a heartbeat before it ran out", func(t *testing.T) {
		play(t, config, with(split,
			step{at: 5900 * milli, in: Tick{}, want: "lapsed 9 at 5.9s; send 4 ack 9 hold 0"},
			step{at: 5950 * milli, in: LetGo{}, want: ""},
			step{at: 6 * second, in: known(share(4, 5, 9, []int{1, 4, 5})), want: "member until 11.3s"},
		))
	})
	t.Run("who leaves keeps nothing, whatever it is asked then", func(t *testing.T) {
		play(t, config, with(split,
			step{at: 800 * milli, in: Leave{}, want: "revoke 9 for 0"},
			step{at: 900 * milli, in: asking(part(3, 5, 9, []int{1, 4}, 3, 7), 11, 1, 4), want: "member until 6.1s; settling 11; revoke 9 for 11"},
			step{at: 1000 * milli, in: LetGo{}, want: "released 9; depart; send 4 ack 11 hold 0"},
		))
	})
	t.Run("a kept bucket with another token cannot be", func(t *testing.T) {
		play(t, config, with(split,
			step{at: 1200 * milli, in: Tick{}, want: "send 4 ack 9 hold 0 part 9"},
			step{at: 1300 * milli, in: share(4, 5, 9, []int{1, 4}, 3, 9), want: "member until 6.6s; lapsed 9 at 1.3s"},
		))
	})
	t.Run("a member without any", func(t *testing.T) {
		play(t, config, []step{
			{at: 0, in: Tick{}, want: "send 1 ack 0 hold 0"},
			{at: 100 * milli, in: share(1, 5, 7, nil), want: "member until 5.4s; granted 7 0/2 [] of 6 until 5.4s"},
			{at: 500 * milli, in: Tick{}, want: "send 2 ack 7 hold 7"},
			{at: 600 * milli, in: asking(share(2, 5, 7, nil), 9), want: "member until 5.9s; extended until 5.9s; settling 9; revoke 7 for 9"},
			{at: 700 * milli, in: LetGo{}, want: "released 7; send 3 ack 9 hold 0"},
			{at: 800 * milli, in: share(3, 5, 9, []int{3}, 9), want: "member until 6.1s; gained [{3 9}] until 6.1s; granted 9 0/2 [{3 9}] of 6 until 6.1s"},
		})
	})
}
