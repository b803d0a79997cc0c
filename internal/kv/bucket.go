package kv

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/wire"
)

// needed is the configuration of the bucket (design section 3), apart from replicas and first sequence.
func (s *Store) needed() streamConfig {
	storage := "file"
	if s.o.Memory {
		storage = "memory"
	}
	ns := s.o.Namespace
	return streamConfig{
		Name:         s.stream,
		Description:  "quorate coordination bucket",
		Subjects:     []string{wire.KVSubject(ns, ">")},
		Retention:    "limits",
		MaxConsumers: -1,
		MaxMsgs:      -1,
		MaxBytes:     -1,
		MaxMsgsPer:   1,
		MaxMsgSize:   -1,
		Discard:      "new",
		Storage:      storage,
		// The source is written out: a republish of ">" is refused as a cycle.
		RePublish:   &republish{Source: wire.KVSubject(ns, ">"), Destination: wire.KVHint(ns, ">")},
		DenyDelete:  true,
		AllowRollup: true,      // a purge is a rollup of its subject
		AllowDirect: false,     // R15: a direct get may be answered by any replica
		AllowMsgTTL: true,      // R9
		MarkerTTL:   MarkerTTL, // R10
	}
}

// minBytes is the least a bucket may be bounded to: a full one refuses renewals.
const minBytes = 16 << 20

// differences compares what was found with what is needed, field by field. Replicas and the first sequence are left out on
// purpose: two creators differ in the second, and the loser attaches.
func differences(found, need streamConfig) []Difference {
	var ds []Difference
	add := func(field string, f, n any) {
		if fs, ns := fmt.Sprint(f), fmt.Sprint(n); fs != ns {
			ds = append(ds, Difference{Field: field, Found: fs, Needed: ns})
		}
	}
	add("subjects", strings.Join(found.Subjects, " "), strings.Join(need.Subjects, " "))
	add("retention", found.Retention, need.Retention)
	add("storage", found.Storage, need.Storage)
	add("max_msgs_per_subject", found.MaxMsgsPer, need.MaxMsgsPer)
	add("max_msgs", found.MaxMsgs, need.MaxMsgs)
	if found.MaxBytes != -1 && found.MaxBytes < minBytes {
		ds = append(ds, Difference{"max_bytes", strconv.FormatInt(found.MaxBytes, 10), fmt.Sprintf("-1 or at least %d", minBytes)})
	}
	add("max_age", found.MaxAge, need.MaxAge)
	add("max_msg_size", found.MaxMsgSize, need.MaxMsgSize)
	add("discard", found.Discard, need.Discard)
	add("discard_new_per_subject", found.DiscardNewPer, need.DiscardNewPer)
	add("no_ack", found.NoAck, need.NoAck)
	add("sealed", found.Sealed, need.Sealed)
	add("allow_direct", found.AllowDirect, need.AllowDirect)
	add("deny_delete", found.DenyDelete, need.DenyDelete)
	add("deny_purge", found.DenyPurge, need.DenyPurge)
	add("allow_rollup_hdrs", found.AllowRollup, need.AllowRollup)
	add("allow_msg_ttl", found.AllowMsgTTL, need.AllowMsgTTL)
	add("subject_delete_marker_ttl", found.MarkerTTL, need.MarkerTTL)
	add("allow_msg_counter", found.AllowCounter, need.AllowCounter)
	add("mirror", present(found.Mirror), "none")
	add("sources", present(found.Sources), "none")
	add("subject_transform", present(found.Transform), "none")
	// Asynchronous persistence acknowledges writes that a crash of the server takes back.
	if found.PersistMode == "async" {
		ds = append(ds, Difference{"persist_mode", found.PersistMode, "default"})
	}
	add("republish", found.RePublish, need.RePublish)
	return ds
}

func (r *republish) String() string {
	if r == nil {
		return "none"
	}
	t := r.Source + " to " + r.Destination
	if r.HeadersOnly {
		t += " (headers only)"
	}
	return t
}

func present(raw json.RawMessage) string {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) || bytes.Equal(raw, []byte("[]")) {
		return "none"
	}
	return string(raw)
}

// refusal is the error for a bucket that is not what it must be: it names each difference, for nobody mends it silently.
func (s *Store) refusal(ds []Difference) error {
	if len(ds) == 0 {
		return nil
	}
	texts := make([]string, len(ds))
	for i, d := range ds {
		texts[i] = d.String()
	}
	return fmt.Errorf("%w: bucket %s: %s", ErrBucket, s.bucket, strings.Join(texts, "; "))
}

// attachAtOnce finds a bucket that is there and as needed, in one round trip: no server could have it that is too old, or has no JetStream. Its one error is a
// missing permission; nil and nil says nothing.
func (s *Store) attachAtOnce(ctx context.Context) (*streamInfo, error) {
	var info *streamInfo
	err := s.patiently(ctx, s.api+"STREAM.INFO."+s.stream, func(ctx context.Context) (err error) {
		ctx, cancel := briefly(ctx, 0)
		defer cancel()
		info, err = s.info(ctx, "")
		return err
	})
	switch {
	case errors.Is(err, ErrPermission):
		return nil, err
	case err != nil, info.Cluster != nil && info.Cluster.Leader == "", len(differences(info.Config, s.needed())) > 0:
		return nil, nil
	}
	s.otherReplicas(info)
	return info, nil
}

// otherReplicas warns of a bucket that was made with others than were asked for.
func (s *Store) otherReplicas(info *streamInfo) {
	if want := s.o.Replicas; want != 0 && want != info.Config.Replicas {
		s.log.Warn("bucket has other replicas than configured", "bucket", s.bucket, "found", info.Config.Replicas, "configured", want)
	}
}

// attach finds the bucket, or makes it unless attachOnly; it waits, until the context ends, for a cluster to find a leader.
func (s *Store) attach(ctx context.Context, attachOnly bool) (*streamInfo, error) {
	var last error
	for try := 0; ; try++ {
		info, err := s.attachOnce(ctx, attachOnly, try)
		switch {
		case err == nil:
			return info, nil
		case ctx.Err() != nil:
			if last == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				last = err
			}
			return nil, fmt.Errorf("bucket %s: %w (%w)", s.bucket, last, ctx.Err())
		case !transient(err):
			return nil, err
		case errors.Is(err, nats.ErrNoResponders) && try >= 3:
			// The account answered before, so JetStream is there; nobody serves this stream: tell so rather than wait for ever.
			return nil, fmt.Errorf("%w: nobody answers on %s; %s", ErrNoJetStream, s.api+"STREAM.INFO."+s.stream, s.jetStreamHint())
		}
		last = err
		if try == 3 {
			s.log.Warn("bucket does not answer yet", "bucket", s.bucket, "error", err)
		}
		if err := sleep(ctx, backoff(try)); err != nil {
			return nil, fmt.Errorf("bucket %s: %w (%w)", s.bucket, last, err)
		}
	}
}

// transient tells errors that pass by themselves (a cluster without a leader, a connection that is away) from those that stay.
func transient(err error) bool {
	if errors.Is(err, ErrPermission) || errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrMaxPayload) {
		return false
	}
	var e *apiError
	if errors.As(err, &e) {
		return e.Code >= 500 && !hasCode(err, codeNotEnabled, codeNotEnabledForAcc, codeNoReplicas)
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, errNoLeader) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) // what Options gives as "reconnecting"
}

var errNoLeader = errors.New("stream has no leader yet")

func (s *Store) attachOnce(ctx context.Context, attachOnly bool, try int) (*streamInfo, error) {
	var info *streamInfo
	err := s.patiently(ctx, s.api+"STREAM.INFO."+s.stream, func(ctx context.Context) (err error) {
		ctx, cancel := briefly(ctx, try)
		defer cancel()
		info, err = s.info(ctx, "")
		return err
	})
	if hasCode(err, codeStreamNotFound) {
		if attachOnly {
			return nil, fmt.Errorf("%w: %s", ErrBucketMissing, s.bucket)
		}
		if info, err = s.create(ctx); hasCode(err, codeStreamNameInUse) {
			// Another creator was faster, with another first sequence: its bucket is ours too. A cluster knows the name before all of its servers know the stream.
			if info, err = s.info(ctx, ""); hasCode(err, codeStreamNotFound) {
				return nil, errNoLeader
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if info.Cluster != nil && info.Cluster.Leader == "" {
		return nil, errNoLeader
	}
	need := s.needed()
	if err := s.refusal(differences(info.Config, need)); err != nil {
		return nil, err
	}
	s.otherReplicas(info)
	return info, nil
}

// create makes the stream beneath the bucket. The wall clock and what this store has seen choose the first sequence, so that
// revisions, which are tokens, grow even when a bucket is lost and made again (R2).
func (s *Store) create(ctx context.Context) (*streamInfo, error) {
	cfg := s.needed()
	cfg.FirstSeq = max(uint64(max(s.clock().Wall/time.Microsecond, 1)), s.ever.Load()+1)
	cfg.Replicas = s.o.Replicas
	if cfg.Replicas == 0 {
		cfg.Replicas = 3 // the server knows whether it has three places for it
	}
	var info streamInfo
	try := func() error {
		return s.patiently(ctx, s.api+"STREAM.CREATE."+s.stream, func(ctx context.Context) error {
			return s.call(ctx, "STREAM.CREATE."+s.stream, cfg, &info)
		})
	}
	err := try()
	if hasCode(err, codeMaxBytesRequired) {
		cfg.MaxBytes = 16 * minBytes
		err = try()
	}
	if s.o.Replicas == 0 {
		// A cluster that has no places for three may just be starting.
		for patience := formingWait(ctx); hasCode(err, codeNoPeers, codeInsufficient) && patience > 0; patience -= formingPoll {
			if sleep(ctx, formingPoll) != nil {
				break
			}
			err = try()
		}
		if hasCode(err, codeNoReplicas, codeNoPeers, codeInsufficient) {
			if !hasCode(err, codeNoReplicas) {
				s.log.Warn("the cluster has no three servers now: the bucket gets one replica, and its server can stop everything; 'quorate init --repair' adds the others later",
					"bucket", s.bucket)
			}
			cfg.Replicas = 1
			err = try()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make bucket %s: %w", s.bucket, err)
	}
	s.log.Info("bucket made", "bucket", s.bucket, "replicas", info.Config.Replicas, "first", cfg.FirstSeq)
	return &info, nil
}

// A cluster is given some time to get its servers together before a bucket is made that lives on one of them for good.
const (
	formingMost = 5 * time.Second
	formingPoll = 100 * time.Millisecond
)

// formingWait leaves half of the caller's time for what comes after it.
func formingWait(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(formingMost, time.Until(end)/2)
	}
	return formingMost
}

// Inspect reads how the namespace's bucket differs from what is needed, without attaching to it or making it. It waits, until ctx ends, for a
// cluster to find a leader. ErrBucketMissing when there is no bucket.
func Inspect(ctx context.Context, nc *nats.Conn, o Options) (State, []Difference, error) {
	s, err := prepareServer(ctx, nc, o)
	if err != nil {
		return State{}, nil, err
	}
	info, err := s.look(ctx)
	if hasCode(err, codeStreamNotFound) {
		return State{}, nil, fmt.Errorf("kv: %w: %s", ErrBucketMissing, s.bucket)
	}
	if err != nil {
		return State{}, nil, fmt.Errorf("kv: inspect %s: %w", s.bucket, err)
	}
	return info.state(), differences(info.Config, s.needed()), nil
}

// Names reads which keys match the patterns, sorted, by a request for each, without attaching to the bucket or writing into it: for suggestions. Keys that have been removed a
// moment ago can be among them.
func Names(ctx context.Context, nc *nats.Conn, o Options, patterns ...string) ([]string, error) {
	s, err := prepareServer(ctx, nc, o)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, p := range patterns {
		info, err := s.info(ctx, s.subject+p)
		if err != nil {
			return nil, fmt.Errorf("kv: names in %s: %w", s.bucket, err)
		}
		for k := range info.State.Subjects {
			found[strings.TrimPrefix(k, s.subject)] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// Repair makes the namespace's bucket what it must be, and sets its replicas: to o.Replicas, or with 0 to three if the cluster has places for
// them and there are fewer. What it returns has been mended. Storage, and what the server does not let be changed, is refused with the server's
// words: such a bucket has to be deleted while nothing runs on it.
func Repair(ctx context.Context, nc *nats.Conn, o Options) ([]Difference, error) {
	s, err := prepareServer(ctx, nc, o)
	if err != nil {
		return nil, err
	}
	ds, err := s.repair(ctx)
	if err != nil {
		return nil, fmt.Errorf("kv: repair %s: %w", s.bucket, err)
	}
	return ds, nil
}

func (s *Store) repair(ctx context.Context) ([]Difference, error) {
	// The found configuration is changed in its own JSON, so that fields this code does not know stay as they are.
	var raw struct {
		Config map[string]json.RawMessage `json:"config"`
	}
	err := s.again(ctx, s.api+"STREAM.INFO."+s.stream, func(ctx context.Context) error { return s.call(ctx, "STREAM.INFO."+s.stream, nil, &raw) })
	if err != nil {
		if hasCode(err, codeStreamNotFound) {
			err = fmt.Errorf("%w: %s", ErrBucketMissing, s.bucket)
		}
		return nil, err
	}
	info, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	need := s.needed()
	ds := differences(info.Config, need)
	if info.Config.MaxBytes >= minBytes {
		need.MaxBytes = info.Config.MaxBytes
	}
	need.Replicas = cmp.Or(s.o.Replicas, max(info.Config.Replicas, 3))
	err = s.update(ctx, raw.Config, need, ds, info.Config.Replicas)
	if s.o.Replicas == 0 && hasCode(err, codeNoReplicas, codeNoPeers, codeInsufficient) {
		need.Replicas = info.Config.Replicas
		err = s.update(ctx, raw.Config, need, ds, info.Config.Replicas)
	}
	if err != nil {
		return nil, err
	}
	if need.Replicas != info.Config.Replicas {
		ds = append(ds, Difference{"num_replicas", strconv.Itoa(info.Config.Replicas), strconv.Itoa(need.Replicas)})
	}
	return ds, nil
}

// update writes the configuration, unless it is as needed.
func (s *Store) update(ctx context.Context, found map[string]json.RawMessage, need streamConfig, ds []Difference, replicas int) error {
	if len(ds) == 0 && need.Replicas == replicas {
		return nil
	}
	var fields map[string]json.RawMessage
	b, err := json.Marshal(need)
	if err == nil {
		err = json.Unmarshal(b, &fields)
	}
	if err != nil {
		return err
	}
	cfg := maps.Clone(found)
	for _, f := range []string{"mirror", "sources", "subject_transform", "persist_mode", "no_ack", "sealed", "discard_new_per_subject", "allow_msg_counter"} {
		delete(cfg, f)
	}
	maps.Copy(cfg, fields)
	return s.again(ctx, s.api+"STREAM.UPDATE."+s.stream, func(ctx context.Context) error { return s.call(ctx, "STREAM.UPDATE."+s.stream, cfg, nil) })
}

// look is info, waited for.
func (s *Store) look(ctx context.Context) (info *streamInfo, err error) {
	try := 0
	err = s.again(ctx, s.api+"STREAM.INFO."+s.stream, func(ctx context.Context) (err error) {
		ctx, cancel := briefly(ctx, try)
		defer cancel()
		try++
		info, err = s.info(ctx, "")
		return err
	})
	return info, err
}

func (i *streamInfo) state() State {
	st := State{Created: i.Created, LastSeq: i.State.LastSeq, Replicas: i.Config.Replicas, Storage: i.Config.Storage,
		Messages: i.State.Messages, Bytes: i.State.Bytes}
	if i.Cluster != nil {
		st.Leader = i.Cluster.Leader
		for _, r := range i.Cluster.Replicas {
			if !r.Current || r.Offline {
				st.Behind = append(st.Behind, r.Name)
			}
		}
	}
	return st
}
