package vote

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/quorate/quorate/coord"
)

// ProposeJSON is [Propose] with a value as the ballot's data, as JSON; p.Data is not used. What cannot be JSON is [ErrBadProposal].
func ProposeJSON(ctx context.Context, c *coord.Client, p Proposal, v any) (Verdict, error) {
	data, err := json.Marshal(v)
	if err != nil {
		w := Verdict{Ballot: p.ID, Topic: p.Topic, Kind: p.Kind, Verdict: Unknown, Why: err.Error(), At: p.At, Tolerance: p.Tolerance}
		return w, fmt.Errorf("vote: propose to group %q: %w: data of type %T: %w", c.Name(), ErrBadProposal, v, err)
	}
	p.Data = data
	return Propose(ctx, c, p)
}

// JSON decodes the data of a ballot.
func (b Ballot) JSON(v any) error {
	if err := json.Unmarshal(b.Data, v); err != nil {
		return fmt.Errorf("data of ballot %s (%d bytes) is not JSON of type %s: %w", b.ID, len(b.Data), strings.TrimPrefix(fmt.Sprintf("%T", v), "*"), err)
	}
	return nil
}
