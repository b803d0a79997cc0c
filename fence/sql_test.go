package fence_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/quorate/quorate/fence"
)

// fakeDB is as much of a database as the guard uses: one table of scopes and tokens, one transaction at a time, statements by their shape. It
// is strict about them. A real one runs in examples/fenced-sql.
type fakeDB struct {
	turn     chan struct{} // who has it has the only transaction
	mu       sync.Mutex
	made     bool
	rows     map[string]int64
	writes   []string // "scope token" of each commit
	log      []string
	onInsert func(*fakeDB) error
	onUpdate func(rows map[string]int64) // before an update
	onSelect func(rows map[string]int64) // before a look
	onCommit error                       // and it is committed all the same
	changed  bool                        // counts changed rows, not found ones, as MySQL does
}

func newFakeDB(t *testing.T) (*fakeDB, *sql.DB) {
	f := &fakeDB{turn: make(chan struct{}, 1), rows: map[string]int64{}}
	db := sql.OpenDB(f)
	t.Cleanup(func() { db.Close() })
	return f, db
}

func (f *fakeDB) Connect(context.Context) (driver.Conn, error) { return &fakeConn{f: f}, nil }
func (f *fakeDB) Driver() driver.Driver                        { return nil }

type fakeConn struct {
	f    *fakeDB
	tx   bool
	rows map[string]int64 // as the transaction sees them
}

func (c *fakeConn) Prepare(q string) (driver.Stmt, error) { return nil, fmt.Errorf("prepared: %s", q) }
func (c *fakeConn) Close() error                          { return nil }
func (c *fakeConn) Begin() (driver.Tx, error) {
	c.f.turn <- struct{}{}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.tx, c.rows = true, map[string]int64{}
	for k, v := range c.f.rows {
		c.rows[k] = v
	}
	return c, nil
}

func (c *fakeConn) Commit() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.rows, c.tx = c.rows, false
	<-c.f.turn
	return c.f.onCommit
}

func (c *fakeConn) Rollback() error {
	c.tx = false
	<-c.f.turn
	return nil
}

func (c *fakeConn) ExecContext(_ context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	f := c.f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, q)
	number := func(i int) int64 { return args[i].Value.(int64) }
	text := func(i int) string { return args[i].Value.(string) }
	shape := strings.NewReplacer("$1", "?", "$2", "?").Replace(q)
	switch {
	case strings.HasPrefix(q, "CREATE TABLE IF NOT EXISTS quorate_fence ("):
		f.made = true
		return driver.RowsAffected(0), nil
	case !f.made || !c.tx:
		return nil, errors.New("no such table, or no transaction")
	case shape == "UPDATE quorate_fence SET token = ? WHERE scope = ? AND token <= ?":
		if f.onUpdate != nil {
			f.onUpdate(c.rows)
		}
		if !strings.Contains(q, "$") && number(2) != number(0) {
			return nil, errors.New("two tokens")
		}
		if old, ok := c.rows[text(1)]; !ok || old > number(0) || f.changed && old == number(0) {
			return driver.RowsAffected(0), nil
		}
		c.rows[text(1)] = number(0)
		return driver.RowsAffected(1), nil
	case shape == "INSERT INTO quorate_fence (scope, token) VALUES (?, ?)":
		if f.onInsert != nil {
			if err := f.onInsert(f); err != nil {
				return nil, err
			}
		}
		c.rows[text(0)] = number(1)
		return driver.RowsAffected(1), nil
	case q == "WRITE":
		f.writes = append(f.writes, fmt.Sprint(number(0)))
		return driver.RowsAffected(1), nil
	}
	return nil, fmt.Errorf("not understood: %s", q)
}

func (c *fakeConn) QueryContext(_ context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	if shape := strings.ReplaceAll(q, "$1", "?"); shape != "SELECT token FROM quorate_fence WHERE scope = ?" {
		return nil, fmt.Errorf("not understood: %s", q)
	}
	if c.f.onSelect != nil {
		c.f.onSelect(c.rows)
	}
	token, ok := c.rows[args[0].Value.(string)]
	return &fakeRows{token: token, left: ok}, nil
}

type fakeRows struct {
	token int64
	left  bool
}

func (r *fakeRows) Columns() []string { return []string{"token"} }
func (r *fakeRows) Close() error      { return nil }
func (r *fakeRows) Next(dest []driver.Value) error {
	if !r.left {
		return io.EOF
	}
	r.left, dest[0] = false, r.token
	return nil
}

func TestSQL(t *testing.T) {
	for _, kind := range []string{"", "$", "MySQL"} {
		f, db := newFakeDB(t)
		f.changed = kind == "MySQL"
		s := fence.SQL{DB: db, Dollar: kind == "$"}
		if err := s.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		called := 0
		write := func(token fence.Token) error {
			return s.Tx(t.Context(), "reports", token, func(tx *sql.Tx) error {
				called++
				_, err := tx.ExecContext(t.Context(), "WRITE", int64(token))
				return err
			})
		}
		for _, c := range []struct {
			token, newer fence.Token
			calls        int
		}{{5, 0, 1}, {5, 0, 2}, {4, 5, 2}, {7, 0, 3}, {6, 7, 3}, {7, 0, 4}} {
			err := write(c.token)
			if c.newer != 0 {
				stale(t, err, uint64(c.token), uint64(c.newer))
			} else if err != nil {
				t.Errorf("%s token %d: %v", kind, c.token, err)
			}
			if called != c.calls {
				t.Errorf("F1: %s token %d: called %d times in all, want %d", kind, c.token, called, c.calls)
			}
		}
		if uses := strings.Contains(strings.Join(f.log, ""), "$1"); uses != (kind == "$") {
			t.Errorf("%s placeholders: %q", kind, f.log)
		}
	}
}

// F1: a transaction that read committed data (PostgreSQL's default) may see a row that was made after its update had found none: it has not taken that
// row, so a newer token can come and go while it is at work.
func TestSQLRowAppears(t *testing.T) {
	for name, newer := range map[string]bool{"alone": false, "then a newer token": true} {
		t.Run(name, func(t *testing.T) {
			f, db := newFakeDB(t)
			s := fence.SQL{DB: db}
			if err := s.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.onSelect = func(rows map[string]int64) {
				rows["x"] = 5 // another transaction of the same token has committed
				f.onSelect = nil
				f.onUpdate = func(rows map[string]int64) {
					if newer {
						rows["x"] = 7 // and then one of a newer
					}
				}
			}
			called := false
			err := s.Tx(t.Context(), "x", fence.Token(5), func(*sql.Tx) error { called = true; return nil })
			if newer {
				stale(t, err, 5, 7)
			} else if err != nil {
				t.Errorf("got %v, want nil", err)
			}
			if updates := strings.Count(strings.Join(f.log, "\n"), "UPDATE"); called == newer || updates != 2 {
				t.Errorf("F1: called %v after %d updates; the row is taken by the second", called, updates)
			}
		})
	}
}

func TestSQLEnds(t *testing.T) {
	f, db := newFakeDB(t)
	s := fence.SQL{DB: db}
	nothing := func(*sql.Tx) error { return nil }
	if err := s.Tx(t.Context(), "x", fence.Token(1), nothing); err == nil || errors.Is(err, fence.ErrUnknown) {
		t.Errorf("without a table: %v", err)
	}
	if err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	// F3: it lost its right while it was at work: rolled back, and the token does not count.
	h := &fickle{}
	h.left.Store(1)
	called := false
	work := func(*sql.Tx) error { called = true; return nil }
	if err := s.Tx(t.Context(), "x", h, work); !errors.Is(err, fence.ErrNotLive) || !called || len(f.rows) != 0 {
		t.Errorf("F3: got %v, called %v, rows %v", err, called, f.rows)
	}
	mine := errors.New("mine")
	if err := s.Tx(t.Context(), "x", fence.Token(9), func(*sql.Tx) error { return mine }); !errors.Is(err, mine) || len(f.rows) != 0 {
		t.Errorf("an error of the callback: got %v, rows %v", err, f.rows)
	}
	// Another makes the scope's row at the same moment.
	f.onInsert = func(f *fakeDB) error {
		f.onInsert = nil
		f.rows["x"] = 3
		return errors.New("unique constraint")
	}
	stale(t, s.Tx(t.Context(), "x", fence.Token(2), nothing), 2, 3)
	// L4: a commit without an answer is unknown.
	f.onCommit = errors.New("connection lost")
	if err := s.Tx(t.Context(), "x", fence.Token(4), nothing); !errors.Is(err, fence.ErrUnknown) {
		t.Errorf("F2: got %v, want ErrUnknown", err)
	}
	f.onCommit = nil
	if err := s.Tx(t.Context(), "x", fence.Token(4), func(tx *sql.Tx) error { return tx.Rollback() }); err == nil || errors.Is(err, fence.ErrUnknown) {
		t.Errorf("a callback that rolled back: %v", err)
	}
	if err := s.Tx(t.Context(), "x", fence.Token(1<<63), nothing); err == nil {
		t.Error("a token that no column takes was taken")
	}
	if err := s.Tx(t.Context(), "x", fence.Token(0), nothing); !errors.Is(err, fence.ErrNoToken) {
		t.Errorf("got %v, want ErrNoToken", err)
	}
}

func TestSQLExec(t *testing.T) {
	if _, err := fence.Exec(t.Context(), execer{rows: 1}, fence.Token(3), "UPDATE"); err != nil {
		t.Error(err)
	}
	_, err := fence.Exec(t.Context(), execer{}, fence.Token(3), "UPDATE")
	stale(t, err, 3, 0)
	if _, err := fence.Exec(t.Context(), execer{err: io.ErrUnexpectedEOF}, fence.Token(3), "UPDATE"); !errors.Is(err, fence.ErrUnknown) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("F2: got %v, want ErrUnknown", err)
	}
	if _, err := fence.Exec(t.Context(), execer{err: errors.New("was called")}, &fickle{}, "UPDATE"); !errors.Is(err, fence.ErrNotLive) {
		t.Errorf("F3: got %v, want ErrNotLive", err)
	}
}

type execer struct {
	rows int64
	err  error
}

func (e execer) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	return driver.RowsAffected(e.rows), e.err
}
