//go:build unix

package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/quorate/quorate/fence"
)

// TestMain is the example itself in the processes that the test starts.
func TestMain(m *testing.M) {
	if os.Getenv("FENCED_SQL_WORKER") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// R1: the late write of a leader that stood still is refused, and what the next one wrote stays.
func TestLateWriteIsRefused(t *testing.T) {
	var out bytes.Buffer
	report, err := run(t.Context(), &out)
	t.Log("\n" + out.String())
	if err != nil {
		t.Fatal(err)
	}
	if report != "by b" {
		t.Errorf("the report is %q, want that of the second leader", report)
	}
	if !strings.Contains(out.String(), "a was refused") {
		t.Error("the late write was not refused")
	}
}

// Many writers with tokens of their own, over several connections: the order of the commits is one of growing tokens.
func TestManyWriters(t *testing.T) {
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "test.db")
	db, _, err := open(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "CREATE TABLE log (n INTEGER PRIMARY KEY AUTOINCREMENT, token INTEGER)"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted, refused := 0, 0
	for range 4 {
		own, guard, err := open(ctx, file)
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		wg.Go(func() {
			for n := range 20 {
				token := fence.Token(1 + n)
				if n%3 == 2 {
					token = fence.Token(max(n-3, 1)) // older than what this one has seen accepted, or refused for a newer: whatever the order, enough of both
				}
				err := guard.Tx(ctx, "log", token, func(tx *sql.Tx) error {
					_, err := tx.Exec("INSERT INTO log (token) VALUES (?)", int64(token))
					return err
				})
				mu.Lock()
				switch {
				case err == nil:
					accepted++
				case errors.Is(err, fence.ErrStale):
					refused++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	rows, err := db.QueryContext(ctx, "SELECT token FROM log ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n, last := 0, int64(0)
	for rows.Next() {
		var token int64
		if err := rows.Scan(&token); err != nil {
			t.Fatal(err)
		}
		if token < last {
			t.Errorf("F1: token %d was accepted after %d", token, last)
		}
		last = token
		n++
	}
	if n != accepted || rows.Err() != nil {
		t.Errorf("%d rows (%v), %d accepted", n, rows.Err(), accepted)
	}
	if accepted < 10 || refused < 5 {
		t.Errorf("%d accepted, %d refused: too few to show anything", accepted, refused)
	}
}

// A row with a token of its own needs no table.
func TestExec(t *testing.T) {
	db, _, err := open(t.Context(), filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE job (id TEXT PRIMARY KEY, state TEXT, token INTEGER NOT NULL); INSERT INTO job VALUES ('j', 'new', 0)"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		token fence.Token
		want  error
	}{{5, nil}, {5, nil}, {4, fence.ErrStale}, {6, nil}} {
		_, err := fence.Exec(t.Context(), db, c.token, "UPDATE job SET state = 'done', token = ?1 WHERE id = 'j' AND token <= ?1", c.token.Token())
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("F1: token %d: got %v, want %v", c.token, err, c.want)
		}
	}
}
