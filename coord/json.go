package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// SendJSON is [Client.Send] of a value as JSON.
func SendJSON(ctx context.Context, c *Client, to To, topic string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("coord: send to %s of group %q: topic %q: %w", to.who, c.group, topic, err)
	}
	return c.Send(ctx, to, topic, data)
}

// AskJSON is [Client.Ask] with a value as JSON, which it decodes the answer to: AskJSON[Stock](ctx, g.Client, coord.ToLeader, "stock", Query{...}).
func AskJSON[Answer, Question any](ctx context.Context, c *Client, to To, topic string, q Question, opts ...AskOption) (Answer, error) {
	var a Answer
	data, err := json.Marshal(q)
	if err != nil {
		return a, fmt.Errorf("coord: ask %s of group %q: topic %q: %w", to.who, c.group, topic, err)
	}
	r, err := c.Ask(ctx, to, topic, data, opts...)
	if err != nil {
		return a, err
	}
	if err := r.JSON(&a); err != nil {
		return a, fmt.Errorf("coord: ask %s of group %q: topic %q: %w", to.who, c.group, topic, err)
	}
	return a, nil
}

// JSON decodes the data of a reply, of an Ask or a Gather; it returns the reply's own error, if it has one.
func (r Reply) JSON(v any) error {
	if r.Err != nil {
		return r.Err
	}
	if err := json.Unmarshal(r.Data, v); err != nil {
		return fmt.Errorf("answer of member %q (%d bytes) is not JSON of type %s: %w", r.From, len(r.Data), typeOf(v), err)
	}
	return nil
}

// JSON decodes the data of a message.
func (m Message) JSON(v any) error {
	if err := json.Unmarshal(m.Data, v); err != nil {
		return fmt.Errorf("message of %d bytes on topic %q is not JSON of type %s: %w", len(m.Data), m.Topic, typeOf(v), err)
	}
	return nil
}

// HandleJSON is [Group.Handle] with values: fn gets the question decoded, and what it returns is sent as JSON. What does not decode is not
// handled: who asked gets a *[RemoteError] that says so, in one line.
func HandleJSON[Question, Answer any](g *Group, topic string, fn func(ctx context.Context, m Message, q Question) (Answer, error)) (stop func(), err error) {
	return g.Handle(topic, func(ctx context.Context, m Message) ([]byte, error) {
		var q Question
		if err := m.JSON(&q); err != nil {
			return nil, err
		}
		a, err := fn(ctx, m, q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(a)
	})
}

// typeOf names what is decoded to, as its user wrote it: without the pointer that decoding needs.
func typeOf(v any) string { return strings.TrimPrefix(fmt.Sprintf("%T", v), "*") }
