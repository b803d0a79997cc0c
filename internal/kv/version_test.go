package kv

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestCheckVersion(t *testing.T) {
	for _, tt := range []struct {
		version string
		ok      bool
	}{
		{"2.11.2", true}, {"2.11.3", true}, {"2.12.0", true}, {"2.15.2", true}, {"3.0.0", true}, {"v2.11.2", true},
		{"2.12.0-RC.1", true}, {"2.16.0-dev", true}, {"2.14.0+build", true},
		{"2.11.1", false}, {"2.11.0", false}, {"2.10.29", false}, {"1.99.99", false}, {"2.2.9", false},
		{"", false}, {"2.11", false}, {"two", false}, {"2.x.1", false},
	} {
		err := checkVersion(tt.version)
		if (err == nil) != tt.ok {
			t.Errorf("%q: %v, want accepted %t", tt.version, err, tt.ok)
		}
		if err != nil && (!errors.Is(err, ErrOldServer) || !strings.Contains(err.Error(), MinServer) || !strings.Contains(err.Error(), tt.version)) {
			t.Errorf("%q: %v; want ErrOldServer with what was found and what is needed", tt.version, err)
		}
	}
}

// Every field that matters is named when it differs, and only then.
func TestDifferences(t *testing.T) {
	s := &Store{o: Options{Namespace: "n"}, stream: "KV_QUORATE_n"}
	if ds := differences(s.needed(), s.needed()); len(ds) != 0 {
		t.Fatalf("a bucket as needed differs: %v", ds)
	}
	for field, change := range map[string]func(*streamConfig){
		"subjects":                  func(c *streamConfig) { c.Subjects = append(c.Subjects, "more") },
		"retention":                 func(c *streamConfig) { c.Retention = "interest" },
		"storage":                   func(c *streamConfig) { c.Storage = "memory" },
		"max_msgs_per_subject":      func(c *streamConfig) { c.MaxMsgsPer = 2 },
		"max_msgs":                  func(c *streamConfig) { c.MaxMsgs = 10 },
		"max_bytes":                 func(c *streamConfig) { c.MaxBytes = 1024 },
		"max_age":                   func(c *streamConfig) { c.MaxAge = time.Hour },
		"max_msg_size":              func(c *streamConfig) { c.MaxMsgSize = 100 },
		"discard":                   func(c *streamConfig) { c.Discard = "old" },
		"discard_new_per_subject":   func(c *streamConfig) { c.DiscardNewPer = true },
		"no_ack":                    func(c *streamConfig) { c.NoAck = true },
		"sealed":                    func(c *streamConfig) { c.Sealed = true },
		"allow_direct":              func(c *streamConfig) { c.AllowDirect = true },
		"deny_delete":               func(c *streamConfig) { c.DenyDelete = false },
		"deny_purge":                func(c *streamConfig) { c.DenyPurge = true },
		"allow_rollup_hdrs":         func(c *streamConfig) { c.AllowRollup = false },
		"allow_msg_ttl":             func(c *streamConfig) { c.AllowMsgTTL = false },
		"subject_delete_marker_ttl": func(c *streamConfig) { c.MarkerTTL = 0 },
		"allow_msg_counter":         func(c *streamConfig) { c.AllowCounter = true },
		"mirror":                    func(c *streamConfig) { c.Mirror = []byte(`{"name":"X"}`) },
		"sources":                   func(c *streamConfig) { c.Sources = []byte(`[{"name":"X"}]`) },
		"subject_transform":         func(c *streamConfig) { c.Transform = []byte(`{"src":">"}`) },
		"persist_mode":              func(c *streamConfig) { c.PersistMode = "async" },
		"republish": func(c *streamConfig) {
			c.RePublish = &republish{Source: "$KV.QUORATE_n.>", Destination: "quorate.n.kv.>", HeadersOnly: true}
		},
	} {
		c := s.needed()
		change(&c)
		if ds := differences(c, s.needed()); len(ds) != 1 || ds[0].Field != field || ds[0].Found == ds[0].Needed {
			t.Errorf("%s changed: differences %v", field, ds)
		}
	}
	same := s.needed()
	same.Replicas, same.FirstSeq, same.MaxBytes, same.Description, same.PersistMode = 3, 77, 1<<30, "mine", "default"
	same.Sources, same.Mirror = []byte("null"), []byte("null")
	if ds := differences(same, s.needed()); len(ds) != 0 {
		t.Errorf("differences that are none: %v", ds)
	}
}
