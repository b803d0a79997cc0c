package kv

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/clock"
	"github.com/quorate/quorate/internal/wire"
)

// deaf is a store without a server.
func deaf() *Store {
	const ns = "default"
	return &Store{o: Options{Namespace: ns}, bucket: wire.Bucket(ns), stream: wire.Stream(ns), subject: wire.KVSubject(ns, ""), clock: clock.Now, epoch: 1}
}

// FuzzHint: whatever is published where the server republishes, only what has the server's own headers, of this bucket and this subject, is taken for a hint;
// the last of a repeated header counts; and a marker has no value (R18).
func FuzzHint(f *testing.F) {
	head := func(lines ...string) []byte { return []byte("NATS/1.0\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n") }
	const subject = "quorate.default.kv.leader.g"
	f.Add(subject, head("Nats-Stream: KV_QUORATE_default", "Nats-Subject: $KV.QUORATE_default.leader.g", "Nats-Sequence: 17", "Nats-Last-Sequence: 16", "Nats-Time-Stamp: 2026-11-23T03:30:00Z"), []byte(`{"v":1}`))
	f.Add(subject, head("Nats-Stream: KV_QUORATE_default", "Nats-Subject: $KV.QUORATE_default.leader.g", "Nats-Sequence: 17", "KV-Operation: PURGE", "Quorate-Reason: resigned", "Quorate-Nonce: n",
		"Quorate-Queue: a,b", "Quorate-Next: a", "Quorate-Token: 5", "Quorate-Incarnation: 6"), []byte("a body"))
	f.Add(subject, head("Nats-Stream: forged", "Nats-Stream: KV_QUORATE_default", "Nats-Subject: $KV.QUORATE_default.leader.g", "Nats-Sequence: 1", "Nats-Sequence: 9007199254740992"), []byte{})
	f.Add(subject, head("Nats-Stream: KV_QUORATE_other", "Nats-Subject: $KV.QUORATE_default.leader.g", "Nats-Sequence: 17"), []byte{})
	f.Add("quorate.default.kv.member.g.a", head("Nats-Stream: KV_QUORATE_default", "Nats-Subject: $KV.QUORATE_default.leader.g", "Nats-Sequence: 17"), []byte{})
	f.Add(subject, head("Nats-Stream: KV_QUORATE_default", "Nats-Subject: $KV.QUORATE_default.leader.g", "Nats-Sequence: -1", "Nats-Marker-Reason: MaxAge", "Quorate-Queue: a b,,"), []byte{})
	f.Fuzz(func(t *testing.T, subject string, head, body []byte) {
		h, err := nats.DecodeHeadersMsg(head)
		if err != nil {
			h = nil // nats.go drops such a message
		}
		s := deaf()
		e, ok := s.hint(&nats.Msg{Subject: subject, Header: h, Data: body})
		if !ok {
			if s.seen.Load() != 0 {
				t.Errorf("%q was no hint, and counts as seen", head)
			}
			return
		}
		lastOf := func(k string) string { vs := h[k]; return vs[len(vs)-1] }
		switch {
		case lastOf("Nats-Stream") != s.stream || lastOf("Nats-Subject") != s.subject+e.Key || subject != wire.KVHint("default", e.Key):
			t.Errorf("%q on %s is taken for %s", head, subject, e.Key)
		case e.Revision == 0 || e.Revision >= wire.MaxToken || e.Revision != s.seen.Load():
			t.Errorf("revision %d", e.Revision)
		case e.Op == Marker && e.Value != nil, e.Op == Record && !bytes.Equal(e.Value, body), e.Op == None:
			t.Errorf("%v with %q, the body is %q", e.Op, e.Value, body)
		case len(e.Queue) > wire.MaxNext:
			t.Errorf("%d wait", len(e.Queue))
		}
		for _, id := range e.Queue {
			if wire.CheckID(id) != nil {
				t.Errorf("%q waits", id)
			}
		}
	})
}

// FuzzAnswer: whatever an answer of the JetStream API says, it is an error or an entry of this bucket, never a panic.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"type":"io.nats.jetstream.api.v1.stream_msg_get_response","message":{"subject":"$KV.QUORATE_default.leader.g","seq":7,"hdrs":"TkFUUy8xLjANCk5hdHMtVFRMOiAxMA0KDQo=","data":"e30=","time":"2026-11-23T03:30:00Z"}}`))
	f.Add([]byte(`{"error":{"code":404,"err_code":10037,"description":"no message found"}}`))
	f.Add([]byte(`{"message":{"subject":"$KV.QUORATE_other.leader.g","seq":18446744073709551615,"hdrs":"AAAA"}}`))
	f.Add([]byte(`{"message":null}`))
	f.Add([]byte(`{"created":"2026-11-23T03:30:00Z","state":{"messages":3,"last_seq":5,"subjects":{"$KV.QUORATE_default.leader.g":1}},"total":3,"config":{"name":"x","max_age":-1,"republish":null}}`))
	f.Add([]byte(`{"total":9}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := deaf()
		var m storedMessage
		if decode("X", data, &m) == nil {
			e, err := s.stored(m)
			if err == nil && (e.Op == None || e.Op == Marker && e.Value != nil || e.Revision == 0 || e.Revision >= wire.MaxToken || strings.HasPrefix(e.Key, "$KV.")) {
				t.Errorf("%s is read as %+v", data, e)
			}
		}
		var i streamInfo
		if decode("X", data, &i) == nil {
			_ = i.state()
			for _, d := range differences(i.Config, s.needed()) {
				if d.Field == "" || d.Found == d.Needed {
					t.Errorf("%s differs as %v", data, d)
				}
			}
		}
		var raw json.RawMessage
		if !json.Valid(data) && decode("X", data, &raw) == nil {
			t.Errorf("%q is no JSON, and no error", data)
		}
	})
}
