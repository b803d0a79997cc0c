package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Codes of the JetStream API that decide something here. They never leave this package (R5, style: errors).
const (
	codeStreamNotFound   = 10059
	codeStreamNameInUse  = 10058 // by a stream of another configuration
	codeNoMessage        = 10037
	codeWrongLastSeq     = 10071
	codeWriteInFlight    = 10164 // another write to the key is under way: proves nothing (R5)
	codeNotEnabled       = 10076
	codeNotEnabledForAcc = 10039
	codeNoPeers          = 10005
	codeNoReplicas       = 10074 // replicas > 1 outside a cluster
	codeInsufficient     = 10023
	codeMaxBytesRequired = 10113
)

// apiError is an error in an answer of the JetStream API.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

func hasCode(err error, codes ...int) bool {
	var e *apiError
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.ErrCode == c {
			return true
		}
	}
	return false
}

// streamConfig is the part of a stream's configuration that quorate sets or checks. Unknown fields of an answer are kept
// out of it: Repair changes the answer's own JSON.
type streamConfig struct {
	Name          string          `json:"name"`
	Description   string          `json:"description,omitempty"`
	Subjects      []string        `json:"subjects,omitempty"`
	Retention     string          `json:"retention"`
	MaxConsumers  int             `json:"max_consumers"`
	MaxMsgs       int64           `json:"max_msgs"`
	MaxBytes      int64           `json:"max_bytes"`
	MaxAge        time.Duration   `json:"max_age"`
	MaxMsgsPer    int64           `json:"max_msgs_per_subject"`
	MaxMsgSize    int32           `json:"max_msg_size"`
	Discard       string          `json:"discard"`
	DiscardNewPer bool            `json:"discard_new_per_subject,omitempty"`
	Storage       string          `json:"storage"`
	Replicas      int             `json:"num_replicas"`
	NoAck         bool            `json:"no_ack,omitempty"`
	Mirror        json.RawMessage `json:"mirror,omitempty"`
	Sources       json.RawMessage `json:"sources,omitempty"`
	Transform     json.RawMessage `json:"subject_transform,omitempty"`
	RePublish     *republish      `json:"republish,omitempty"`
	AllowDirect   bool            `json:"allow_direct"`
	Sealed        bool            `json:"sealed,omitempty"`
	DenyDelete    bool            `json:"deny_delete"`
	DenyPurge     bool            `json:"deny_purge"`
	AllowRollup   bool            `json:"allow_rollup_hdrs"`
	AllowMsgTTL   bool            `json:"allow_msg_ttl"`
	MarkerTTL     time.Duration   `json:"subject_delete_marker_ttl,omitempty"`
	AllowCounter  bool            `json:"allow_msg_counter,omitempty"`
	PersistMode   string          `json:"persist_mode,omitempty"`
	FirstSeq      uint64          `json:"first_seq,omitempty"`
}

type republish struct {
	Source      string `json:"src"`
	Destination string `json:"dest"`
	HeadersOnly bool   `json:"headers_only,omitempty"`
}

// streamInfo is the answer to STREAM.INFO.
type streamInfo struct {
	Config  streamConfig `json:"config"`
	Created time.Time    `json:"created"`
	State   struct {
		Messages uint64            `json:"messages"`
		Bytes    uint64            `json:"bytes"`
		LastSeq  uint64            `json:"last_seq"`
		Subjects map[string]uint64 `json:"subjects"`
	} `json:"state"`
	Cluster *struct {
		Leader   string `json:"leader"`
		Replicas []struct {
			Name    string `json:"name"`
			Current bool   `json:"current"`
			Offline bool   `json:"offline"`
		} `json:"replicas"`
	} `json:"cluster"`
	Total int `json:"total"` // of subjects, when they come in pages
}

// storedMessage is the answer to STREAM.MSG.GET.
type storedMessage struct {
	Message *struct {
		Subject string    `json:"subject"`
		Seq     uint64    `json:"seq"`
		Header  []byte    `json:"hdrs"`
		Data    []byte    `json:"data"`
		Time    time.Time `json:"time"`
	} `json:"message"`
}

type accountInfo struct {
	API struct {
		Level int `json:"level"`
	} `json:"api"`
}

// apiTimeout is the least time that a look at the bucket as a whole, or making it, is given: three servers need their time for
// that, and with a short lease Options.Timeout is shorter.
const apiTimeout = 2 * time.Second

// call sends one request of the JetStream API through the domain's prefix (R37) and decodes its answer. One attempt, bounded
// by Options.Timeout for a message, by apiTimeout for others; of a read several with Options.Patient. An error in the answer is an *apiError.
func (s *Store) call(ctx context.Context, what string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	subject := s.api + what
	timeout := s.o.Timeout
	if !strings.HasPrefix(what, "STREAM.MSG.GET.") {
		timeout = max(timeout, apiTimeout)
	}
	reads := strings.HasPrefix(what, "STREAM.MSG.GET.") || strings.HasPrefix(what, "STREAM.INFO.")
	msg, err := s.once(ctx, timeout, subject, body)
	for s.o.Patient && reads && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		msg, err = s.once(ctx, timeout, subject, body)
	}
	if err != nil {
		return err
	}
	return decode(subject, msg.Data, out)
}

// once makes one request.
func (s *Store) once(ctx context.Context, timeout time.Duration, subject string, body []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	msg, err := s.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, s.denied(subject, err)
	}
	return msg, nil
}

// decode reads an answer of the API: an error stands in it beside what was asked for.
func decode(subject string, data []byte, out any) error {
	if out == nil || bytes.Contains(data, []byte(`"error"`)) { // most answers are long, and no error
		var head struct {
			Error *apiError `json:"error"`
		}
		if err := json.Unmarshal(data, &head); err != nil {
			return fmt.Errorf("answer on %s does not decode: %w", subject, err)
		}
		if head.Error != nil {
			return head.Error
		}
		if out == nil {
			return nil
		}
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("answer on %s does not decode: %w", subject, err)
	}
	return nil
}

// denied turns the timeout that a missing permission shows as into ErrPermission. The server tells of permissions beside the
// request, and the connection's error handler belongs to its user; what is left is the connection's last error, which names
// the subject.
func (s *Store) denied(subject string, err error) error {
	if errors.Is(err, nats.ErrNoResponders) || err == nil {
		return err
	}
	if missing := s.refused(subject, nil); missing != nil {
		return missing
	}
	return err
}

// refused is what the server had against the subject, or against the subjects of answers, since the connection's last error was before; nil for nothing. Of
// several errors the last one is all that there is to see.
func (s *Store) refused(subject string, before error) error {
	last := s.nc.LastError()
	if last == nil || !errors.Is(last, nats.ErrPermissionViolation) || before != nil && errors.Is(last, before) {
		return nil
	}
	text := last.Error()
	for _, name := range []string{subject + `"`, s.inbox + "."} {
		if strings.Contains(text, `"`+name) {
			return fmt.Errorf("%w: %s", ErrPermission, strings.TrimPrefix(text, "nats: permissions violation: "))
		}
	}
	return nil
}

// Permission starts to look for a missing permission to ask on a subject, which shows as silence otherwise: what it returns gives [ErrPermission] once the
// server has refused one, and nil until then.
func (s *Store) Permission(subject string) func() error {
	before := s.nc.LastError()
	return func() error { return s.refused(subject, before) }
}

// Ask makes one request that nobody may be permitted to make: [ErrPermission] then, at once, where it would wait for ctx to end.
func (s *Store) Ask(ctx context.Context, q *nats.Msg) (*nats.Msg, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	missing := s.Permission(q.Subject)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := missing(); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	m, err := s.nc.RequestMsgWithContext(ctx, q)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrPermission) {
		err = cause
	}
	cancel(nil)
	<-watched
	return m, err
}

// patiently runs one call at start-up, where a missing permission is to be named at once rather than after a timeout.
func (s *Store) patiently(ctx context.Context, subject string, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if err := s.denied(subject, context.DeadlineExceeded); errors.Is(err, ErrPermission) {
				cancel()
				<-done //nolint:errcheck // cancelled: what is missing says more
				return err
			}
		}
	}
}

// again repeats one call until it is answered, or ctx ends: a cluster that has no leader yet does not answer. What does not pass by itself is returned.
func (s *Store) again(ctx context.Context, subject string, do func(context.Context) error) error {
	for try := 0; ; try++ {
		err := s.patiently(ctx, subject, do)
		if err == nil || !transient(err) || hasCode(err, codeNoPeers, codeInsufficient) || errors.Is(err, nats.ErrNoResponders) && try >= 3 {
			return err
		}
		if sleep(ctx, backoff(try)) != nil {
			return err
		}
	}
}

// info asks the stream's leader about the bucket; filter "" leaves out which keys there are.
func (s *Store) info(ctx context.Context, filter string) (*streamInfo, error) {
	var all *streamInfo
	for {
		req := struct {
			Filter string `json:"subjects_filter,omitempty"`
			Offset int    `json:"offset,omitempty"`
		}{Filter: filter}
		if all != nil {
			req.Offset = len(all.State.Subjects)
		}
		var page streamInfo
		if err := s.call(ctx, "STREAM.INFO."+s.stream, req, &page); err != nil {
			return nil, err
		}
		if all == nil {
			all = &page
		} else {
			if len(page.State.Subjects) == 0 {
				return all, nil
			}
			if all.State.Subjects == nil {
				all.State.Subjects = map[string]uint64{}
			}
			maps.Copy(all.State.Subjects, page.State.Subjects)
		}
		// The first page's sequence stays: what came after it is told by hints and by the next look.
		if filter == "" || len(all.State.Subjects) >= all.Total {
			return all, nil
		}
	}
}

// checkVersion refuses servers without what quorate needs.
func checkVersion(found string) error {
	v, need := versionOf(found), versionOf(MinServer)
	if v == nil {
		return fmt.Errorf("%w: found version %q, need %s", ErrOldServer, found, MinServer)
	}
	for i := range need {
		if v[i] != need[i] {
			if v[i] < need[i] {
				return fmt.Errorf("%w: found %s, need %s", ErrOldServer, found, MinServer)
			}
			break
		}
	}
	return nil
}

// versionOf reads the three numbers of a version, whatever follows them; nil if there are not three.
func versionOf(s string) []int {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "-")
	s, _, _ = strings.Cut(s, "+")
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return nil
	}
	v := make([]int, 3)
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 {
			return nil
		}
		v[i] = n
	}
	return v
}
