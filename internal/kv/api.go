package kv

import (
	"errors"
	"log/slog"
	"time"

	"github.com/quorate/quorate/internal/clock"
)

// An Outcome is what is known about a write (design L4).
type Outcome int

// The three outcomes of a write.
const (
	Unknown Outcome = iota // no answer, or one that proves nothing: it may have landed, or may still land
	Yes                    // landed, as the given revision
	No                     // refused: the key is not at the expected revision (any more)
)

func (o Outcome) String() string { return [...]string{"unknown", "yes", "no"}[o] }

// An Op is what an entry is.
type Op int

// What an entry can be.
const (
	None   Op = iota // nothing is stored under the key, not even a marker
	Record           // a value
	Marker           // a deletion: purge, delete or an expiry (MaxAge)
)

// An Entry is what is stored under a key, as one message or answer showed it.
type Entry struct {
	Key      string
	Op       Op
	Revision uint64 // 0 for None
	Replaced uint64 // revision this write was compared with (Nats-Expected-Last-Subject-Sequence); 0 when absent or not known
	Value    []byte
	Reason   string        // markers: Quorate-Reason, or "MaxAge", or "" for a foreign delete
	Nonce    string        // markers: Quorate-Nonce
	Token    uint64        // markers: Quorate-Token
	Inc      uint64        // markers: Quorate-Incarnation
	Next     string        // markers: Quorate-Next
	Queue    []string      // markers: Quorate-Queue; empty: nobody waits, nil: it does not say
	Stored   time.Time     // the server's time of the write: for display, never for decisions
	Seen     clock.Instant // when the message or answer arrived
	Epoch    uint64        // attachment of the store that showed it: see [Store.Epoch]

	// Vacant, for None in an answer of [Store.Read], says that the absence proves something (design 4.1): one answer of the
	// stream's leader showed no message under the key, the bucket this store has known from its first attachment on, and no
	// sequence below one this store has ever seen. Whether a holder of the key was seen before is for the caller to know.
	Vacant bool

	previous uint64 // hints: revision of the same key before this one (Nats-Last-Sequence)
}

// ReasonMaxAge is the Reason of an expiry marker.
const ReasonMaxAge = "MaxAge"

// Errors of this package; each is returned wrapped with what was found and what is needed.
var (
	ErrNotSent     = errors.New("surely not delivered") // with [Unknown]: the same write may be sent again at once
	ErrNoJetStream = errors.New("JetStream is not available")
	ErrOldServer   = errors.New("NATS server is too old")
	ErrBucket      = errors.New("bucket is configured differently")
	ErrBucketLost  = errors.New("bucket was lost or made again")
	ErrClosed      = errors.New("closed")
	ErrPermission  = errors.New("NATS permissions are missing")
)

// Options of [Open]. The zero value works.
type Options struct {
	Namespace  string        // default "default"
	Domain     string        // JetStream domain; default none
	Replicas   int           // of a bucket that is made; default 3 in a cluster of three or more servers, else 1
	Reconcile  time.Duration // period of the watchers' resynchronisation; default 500 ms. The rebirth check runs at ten times that, at most 10 s
	Timeout    time.Duration // of one attempt of a read or write; default 500 ms
	Memory     bool          // memory storage, for tests in virtual time only (such a bucket is accepted by Open with Memory only)
	AttachOnly bool          // do not make the bucket when it is missing: ErrBucketMissing
	Patient    bool          // a read that is not answered within Timeout is asked again until its context ends: for who holds nothing meanwhile
	Clock      clock.Source  // default clock.Now
	Logger     *slog.Logger  // default: discards
}

// ErrBucketMissing is returned by Open with AttachOnly when there is no bucket.
var ErrBucketMissing = errors.New("bucket does not exist")

// A Write is one compare-and-set.
type Write struct {
	Key      string
	Expected uint64        // the revision it replaces; 0: nothing, not even a marker, may be there
	Value    []byte        // of a record; must be empty for a purge
	Purge    bool          // write a purge marker (with TTL) in place of a record
	Reason   string        // purge: Quorate-Reason
	Nonce    string        // purge: Quorate-Nonce of the record it replaces
	Token    uint64        // purge by a leader: its token
	Inc      uint64        // purge of a member's record: its incarnation
	Next     string        // purge: Quorate-Next, whom a release is for; default none
	Queue    []string      // purge: Quorate-Queue, who waits; empty: nobody, nil: it does not say
	TTL      time.Duration // whole seconds (rounded up), at least 1 s; 0: no expiry (checked by callers: all quorate keys have one)
	Epoch    uint64        // if not 0: send only while the store's attachment is still this one, else ErrBucketLost
}

// MarkerTTL is how long the server keeps the marker of an expired key (SubjectDeleteMarkerTTL). A watcher that is cut off for
// longer learns of an expiry from the key's absence in a snapshot (R17). It is no lower bound for the TTLs of keys: with a
// history of one the server takes those as they are (R9).
const MarkerTTL = time.Minute

// MinServer is the oldest NATS server that quorate works with: per-message TTL, and marker fixes.
const MinServer = "2.11.2"

// MinAPILevel is the JetStream API level that per-message TTLs and markers need (R10).
const MinAPILevel = 1

// A State is what the stream's leader says about the bucket.
type State struct {
	Created  time.Time // changes when the bucket is deleted and made again
	LastSeq  uint64
	Replicas int
	Storage  string   // "file" or "memory"
	Leader   string   // name of the server that leads the stream
	Behind   []string // names of the servers whose replica has not caught up, or is away
	Messages uint64
	Bytes    uint64
}

// A Difference is one way in which an existing bucket is not what quorate needs.
type Difference struct {
	Field  string `json:"field" doc:"as NATS calls it"`
	Found  string `json:"found" doc:"what it is"`
	Needed string `json:"needed" doc:"what it must be"`
}

func (d Difference) String() string { return d.Field + " is " + d.Found + ", must be " + d.Needed }

// An Event tells what is stored under a key now. Op None: the key is gone without a marker that could tell why.
type Event struct {
	Entry
	Replay bool // found by a snapshot or a resynchronisation, not heard
}

// WatchOptions of [Store.Watch]. The zero value works.
type WatchOptions struct {
	// Reconcile is the period of the watch's own look at the bucket; default the store's, below zero: never. A period without
	// a missed change costs one request.
	Reconcile time.Duration
	// NoSnapshot leaves out what is there at the start: only later changes are told, and [Watch.Synced] is closed at once.
	NoSnapshot bool
}
