package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/quorate/quorate/coord"
	"github.com/quorate/quorate/internal/wire"
	"github.com/quorate/quorate/partition"
)

// ownerLine is whose a key is as `owner -o json` shows it (design section 7).
type ownerLine struct {
	Key        string `json:"key" doc:"as it was asked"`
	Member     string `json:"member" doc:"who owns it"`
	Index      int    `json:"index" doc:"the member's share"`
	Bucket     *int   `json:"bucket,omitempty" doc:"the bucket of the key; left out of a group without buckets"`
	Generation uint64 `json:"generation" doc:"of the shares"`
	Token      uint64 `json:"token" doc:"the fencing token: the bucket's, or the generation"`
}

func ownerCommand() *command {
	return &command{
		name:    "owner",
		section: sectionShow,
		summary: "show which member owns a key",
		about: "Shows which member of the group each KEY belongs to by the last settled generation: with buckets the owner of the key's bucket, without them the member with the key's index. " +
			"The token is what that member fences its writes with: the bucket's, or the generation.\n\n" +
			"While the share of a KEY changes hands it is waited for, up to --timeout. The owner may have let go, or died, since it was settled.",
		args:  []argSpec{{name: "GROUP"}, {name: "KEY", many: true}},
		flags: []flagSpec{{name: "bucket", kind: kindBool, usage: "each KEY is the number of a bucket, from 0, or without buckets an index"}},
		needs: needClient,
		json:  []shape{{of: ownerLine{}, list: true}},
		examples: []example{
			{"quorate owner workers orders/17", "a table of one"},
			{"quorate owner workers a b c -j", "a JSON array, with the fields key, member, index, bucket (with buckets), generation, token"},
			{"quorate owner workers --bucket 5", "whose bucket 5 is"},
		},
		exits: []exitSpec{{ExitFailed, "failed; also: no such group, no such bucket"}, {ExitUnanswered, "nobody works in the group, it does not settle within --timeout, or no answer"}},
		run:   runOwner,
	}
}

func runOwner(ctx context.Context, c *call) error {
	numbers := make([]int, len(c.args)-1)
	if c.bool("bucket") {
		for i, a := range c.args[1:] {
			n, err := parseInt(a)
			if err != nil {
				return usageError("owner: bucket %q: %w", a, err)
			}
			numbers[i] = n
		}
	}
	return c.inGroup(ctx, func(ctx context.Context, cl *coord.Client, r coord.Roster) error {
		// Who works has a share, or is about to.
		works := slices.ContainsFunc(r.Members, func(m coord.Member) bool { return slices.Contains(m.Roles, wire.RoleWork) })
		for {
			lines, settled, err := c.owners(ctx, cl, numbers, works)
			switch {
			case err != nil:
				return err
			case settled:
				return c.printOwners(lines)
			}
			select {
			case <-ctx.Done():
				return failure(ExitUnanswered, "owner: the work of group %q is changing hands, and was not settled within %s: 'quorate groups' shows its phase", cl.Name(), c.g.timeout)
			case <-time.After(c.g.lease / 60):
			}
		}
	})
}

// owners looks the arguments up; settled is false while the share of one of them changes hands.
func (c *call) owners(ctx context.Context, cl *coord.Client, numbers []int, works bool) (lines []ownerLine, settled bool, err error) {
	t, err := partition.Lookup(ctx, cl)
	if err != nil {
		return nil, false, c.failed(ctx, err)
	}
	if t.Total == 0 && !t.Settling && works {
		return nil, false, nil
	}
	if t.Total == 0 && !t.Settling {
		return nil, false, failure(ExitUnanswered, "owner: nobody works in group %q: 'quorate members %s' shows who is there", cl.Name(), cl.Name())
	}
	for i, key := range c.args[1:] {
		s, ok := t.Owner(key)
		if c.bool("bucket") {
			s, ok = t.Share(numbers[i]), true
			if most := max(t.Buckets, t.Total); !t.Settling && numbers[i] >= most {
				return nil, false, failure(ExitFailed, "owner: group %q has no bucket %d: it has %d, from 0 on", cl.Name(), numbers[i], most)
			}
		}
		if !ok {
			return nil, false, failure(ExitFailed, "owner: group %q maps keys by %q, which this version does not know: 'quorate version' says which it is", cl.Name(), t.Map)
		}
		if s.Member == "" || s.Moving {
			return nil, false, nil
		}
		l := ownerLine{Key: key, Member: s.Member, Index: s.Index, Generation: t.Generation, Token: s.Token}
		if s.Bucket >= 0 {
			l.Bucket = &s.Bucket
		}
		lines = append(lines, l)
	}
	return lines, true, nil
}

func (c *call) printOwners(lines []ownerLine) error {
	if c.g.json {
		return c.printJSON(lines)
	}
	t := newTable("KEY", "MEMBER", "INDEX", "BUCKET", "TOKEN")
	t.right, t.shrink = []int{2, 3, 4}, 0
	for _, l := range lines {
		bucket := ""
		if l.Bucket != nil {
			bucket = strconv.Itoa(*l.Bucket)
		}
		t.add(l.Key, l.Member, strconv.Itoa(l.Index), bucket, fmt.Sprint(l.Token))
	}
	return c.printTable(t)
}
