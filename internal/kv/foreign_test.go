package kv_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quorate/quorate/internal/kv"
	"github.com/quorate/quorate/testenv"
)

// Whatever permission is missing, Open or Check names it, at once and not after a timeout.
func TestMissingPermissionIsNamed(t *testing.T) {
	dir := t.TempDir()
	testenv.Bubble(t, func(t *testing.T) {
		user := func(name string, deny ...string) *server.User {
			return &server.User{Username: name, Password: "p", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: deny}, Subscribe: &server.SubjectPermission{Deny: deny}}}
		}
		denied := map[string]string{
			"account": "$JS.API.INFO",
			"info":    "$JS.API.STREAM.INFO.>",
			"create":  "$JS.API.STREAM.CREATE.>",
			"get":     "$JS.API.STREAM.MSG.GET.>",
			"put":     "$KV.QUORATE_default.>",
			"hints":   "quorate.default.kv.>",
			"inbox":   "_INBOX.>",
		}
		users := []*server.User{user("all", "nothing")}
		for name, subject := range denied {
			users = append(users, user(name, subject))
		}
		srv, err := testenv.NewServer(dir, testenv.WithUsers(users...))
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Stop()
		try := func(user string) error {
			nc, err := nats.Connect("", nats.InProcessServer(srv), nats.UserInfo(user, "p"),
				nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			s, err := kv.Open(t.Context(), nc, kv.Options{Memory: true, Timeout: time.Minute})
			if err != nil {
				return err
			}
			defer s.Close()
			return s.Check(t.Context())
		}
		report := func(user string) {
			began := time.Now()
			err := try(user)
			if !errors.Is(err, kv.ErrPermission) || !strings.Contains(err.Error(), strings.TrimSuffix(denied[user], ".>")) {
				t.Errorf("without %s: %v, want ErrPermission naming it", denied[user], err)
			}
			if d := time.Since(began); user != "hints" && d > time.Second {
				t.Errorf("without %s: told after %v of virtual time", denied[user], d)
			}
		}
		report("create") // while there is no bucket
		if err := try("all"); err != nil {
			t.Fatalf("with all permissions: %v", err)
		}
		for name := range denied {
			if name != "create" {
				report(name)
			}
		}
		if err := try("create"); err != nil {
			t.Errorf("without the permission to create, with a bucket that is there: %v", err)
		}
	})
}

// slow is how long a call may take where each write is synced to a disk that others use too.
const slow = 5 * time.Second

// R19: a store directory that is put back from a copy has the same creation time and a lower sequence.
func TestRestoredBucketIsNoticed(t *testing.T) {
	srv := testenv.Real(t)
	nc := srv.Connect("a")
	s, err := kv.Open(t.Context(), nc, kv.Options{Reconcile: 20 * time.Millisecond, Timeout: slow})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rev := must(t, s, kv.Write{Key: "leader.g", Value: []byte("old"), TTL: time.Hour})
	srv.Stop()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(srv.Dir())); err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	next := settle(t, s, kv.Write{Key: "leader.g", Expected: rev, Value: []byte("new"), TTL: time.Hour})
	lost := s.Lost()
	select {
	case <-lost:
		t.Fatal("a restart on the same data was taken for a loss")
	default:
	}

	srv.Stop()
	if err := os.RemoveAll(filepath.Join(srv.Dir(), "jetstream")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(srv.Dir(), os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	<-lost
	if _, err := s.Read(t.Context(), "leader.g"); !errors.Is(err, kv.ErrBucketLost) || !strings.Contains(err.Error(), "went back") {
		t.Fatalf("read: %v, want ErrBucketLost because it went back", err)
	}
	if err := s.Reattach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, "leader.g"); string(got.Value) != "old" || got.Revision != rev || s.Seen() >= next {
		t.Fatalf("after Reattach: %+v, seen %d; want what the copy held", got, s.Seen())
	}
}

// settle repeats a write until it is answered, over a reconnect.
func settle(t *testing.T, s *kv.Store, w kv.Write) uint64 {
	t.Helper()
	for {
		rev, out, err := s.Do(t.Context(), w)
		switch {
		case out == kv.Yes:
			return rev
		case out == kv.No:
			e := read(t, s, w.Key)
			if string(e.Value) == string(w.Value) {
				return e.Revision
			}
			t.Fatalf("write: %v", err)
		case t.Context().Err() != nil:
			t.Fatal(err)
		}
	}
}

// R9 and R10 on file storage, over a restart: what has expired while the server was away is gone, with a marker.
func TestFileBucketOverRestart(t *testing.T) {
	srv := testenv.Real(t)
	nc := srv.Connect("a")
	s, err := kv.Open(t.Context(), nc, kv.Options{Timeout: slow})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	marked := make(chan kv.Entry, 1)
	w, err := s.Watch("election.*", kv.WatchOptions{}, func(e kv.Event) {
		if e.Op == kv.Marker {
			marked <- e.Entry
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	must(t, s, kv.Write{Key: "election.short", Value: []byte("x"), TTL: time.Second})
	long := must(t, s, kv.Write{Key: "election.long", Value: []byte("x"), TTL: time.Hour})
	srv.Stop()
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	if e := <-marked; e.Key != "election.short" || e.Reason != kv.ReasonMaxAge {
		t.Fatalf("marker %+v, want the expiry of election.short", e)
	}
	if got := read(t, s, "election.long"); got.Revision != long {
		t.Fatalf("read: %+v, want the record at %d", got, long)
	}
	st, err := s.State(t.Context())
	if err != nil || st.Storage != "file" || st.Replicas != 1 || st.LastSeq <= long || st.Created.IsZero() {
		t.Fatalf("state: %+v, %v", st, err)
	}
}

// R8: outside of this package nothing writes to a bucket, so nothing can write to it unconditionally.
func TestNobodyElseWritesKeys(t *testing.T) {
	root := filepath.Join("..", "..")
	forbidden := map[string]bool{"KeyValue": true, "CreateKeyValue": true, "CreateOrUpdateKeyValue": true, "UpdateKeyValue": true, "PutString": true}
	checked := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			switch {
			case rel != "." && strings.HasPrefix(d.Name(), "."), d.Name() == "bench", d.Name() == "examples", d.Name() == "testdata":
				return filepath.SkipDir // comparisons, users' own buckets
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(rel, "fence") {
			return nil // fence guards its users' own buckets
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil // somebody else's problem: the build says so
		}
		checked++
		uses := false
		for _, imp := range file.Imports {
			p := strings.Trim(imp.Path.Value, `"`)
			uses = uses || strings.HasPrefix(p, "github.com/nats-io/nats.go") && !strings.Contains(p, "micro")
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if uses && forbidden[n.Sel.Name] {
					t.Errorf("%s: %s: no handle on a KV bucket outside of internal/kv: keys are written by compare-and-set alone", set.Position(n.Pos()), n.Sel.Name)
				}
			case *ast.BasicLit:
				if n.Kind == token.STRING && strings.Contains(n.Value, "$KV.") && !strings.HasPrefix(rel, "internal") && strings.Contains(n.Value, "QUORATE") &&
					!strings.Contains(rel, "perm") {
					t.Errorf("%s: %s: the bucket's subjects are made by internal/wire alone", set.Position(n.Pos()), n.Value)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 10 {
		t.Fatalf("only %d files looked at: is %s the repository?", checked, root)
	}
}
