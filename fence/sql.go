package fence

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
)

// SQL guards what transactions write, by a table with the highest token of each scope. It works with any database/sql driver whose
// database lets an UPDATE wait for, or refuse, another transaction's UPDATE of the same row (SQLite, PostgreSQL, MySQL).
//
// Where each row that is written has its own token, no table is needed: see [Exec].
type SQL struct {
	DB     *sql.DB
	Table  string         // default "quorate_fence"; goes into statements as it is
	Dollar bool           // placeholders are $1, $2 (PostgreSQL) and not ?
	Begin  *sql.TxOptions // default nil: the driver's
}

func (s SQL) table() string {
	if s.Table == "" {
		return "quorate_fence"
	}
	return s.Table
}

func (s SQL) place(statement string) string {
	a, b := "?", "?"
	if s.Dollar {
		a, b = "$1", "$2"
	}
	return fmt.Sprintf(statement, s.table(), a, b)
}

// Init makes the table if there is none.
func (s SQL) Init(ctx context.Context) error {
	_, err := s.DB.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+s.table()+" (scope VARCHAR(255) NOT NULL PRIMARY KEY, token BIGINT NOT NULL)")
	if err != nil {
		return fmt.Errorf("fence: make table %s: %w", s.table(), err)
	}
	return nil
}

// Tx runs fn in a transaction that commits only if no newer token has been used in the scope; its token counts as used from the
// commit on. While it runs, transactions of the same scope wait for it, or fail, as the database does it. fn must write through tx
// alone, and neither commit nor roll back.
//
// [ErrStale]: fn was not called. [ErrNotLive]: the holder lost its right before, or while fn ran; nothing was committed. An error
// of fn: rolled back. [ErrUnknown]: the commit was sent and not confirmed. A failed insertion of the scope's row, when two come
// first at once, is tried again.
func (s SQL) Tx(ctx context.Context, scope string, h Holder, fn func(tx *sql.Tx) error) error {
	fail := func(err error) error { return fmt.Errorf("fence: %s of table %s: %w", what(scope), s.table(), err) }
	token, err := number(h)
	if err != nil {
		return fail(err)
	}
	for try := 0; ; try++ {
		tx, err := s.DB.BeginTx(ctx, s.Begin)
		if err != nil {
			return fail(err)
		}
		again, err := s.admit(ctx, tx, scope, token)
		if err == nil {
			if err = fn(tx); err == nil {
				err = check(h) // F3: it may have taken long
			}
		}
		if err != nil {
			_ = tx.Rollback() // what failed has said so
			if again && try < 3 && ctx.Err() == nil {
				continue
			}
			return fail(err)
		}
		switch err := tx.Commit(); {
		case err == nil:
			return nil
		case errors.Is(err, sql.ErrTxDone): // rolled back by its context, or by fn
			return fail(err)
		default: // drivers do not tell what a failed commit left
			return fail(fmt.Errorf("%w: commit: %w", ErrUnknown, err))
		}
	}
}

// admit takes the scope's row for the transaction, and refuses an older token. again: another has made the row at the same time.
func (s SQL) admit(ctx context.Context, tx *sql.Tx, scope string, token int64) (again bool, err error) {
	up := "UPDATE %[1]s SET token = %[2]s WHERE scope = %[3]s AND token <= "
	args := []any{token, scope, token}
	if s.Dollar {
		up, args = s.place(up)+"$1", args[:2]
	} else {
		up = s.place(up) + "?"
	}
	for look := 0; ; look++ {
		r, err := tx.ExecContext(ctx, up, args...)
		if err != nil {
			return false, err
		}
		n, err := r.RowsAffected()
		if err != nil {
			return false, err
		}
		if n > 0 {
			return false, nil
		}
		var seen int64
		err = tx.QueryRowContext(ctx, s.place("SELECT token FROM %[1]s WHERE scope = %[2]s"), scope).Scan(&seen)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			_, err = tx.ExecContext(ctx, s.place("INSERT INTO %[1]s (scope, token) VALUES (%[2]s, %[3]s)"), scope, token)
			return err != nil, err
		case err != nil:
			return false, err
		case seen > token:
			return false, &StaleError{What: what(scope), Token: uint64(token), Newer: uint64(seen)}
		case seen < token:
			return true, fmt.Errorf("token %d was not taken over %d", token, seen) // a snapshot older than the update
		case look > 0:
			return false, nil // MySQL counts the rows it changes, and there was nothing to change: the row is taken
		}
		// Equal: it may have been made, for the same token, between the update and the look. Then it is not taken yet, and a newer token need
		// not wait for this transaction: once more, now that there is a row.
	}
}

// An Execer is a *sql.DB, *sql.Conn or *sql.Tx.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Exec runs one statement that writes a row with a token of its own, and only if that is not newer:
//
//	fence.Exec(ctx, db, term, "UPDATE report SET body = ?, token = ? WHERE id = ? AND token <= ?", body, term.Token(), id, term.Token())
//
// No row affected is a [StaleError] without the newer token: there is a newer one, or there is no such row. (With MySQL's driver,
// set clientFoundRows: it counts rows that are changed, not those found.) A driver's error is [ErrUnknown] too: drivers do not
// tell what a failed statement left.
func Exec(ctx context.Context, db Execer, h Holder, query string, args ...any) (sql.Result, error) {
	token, err := number(h)
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	r, err := db.ExecContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("fence: %w: %w", ErrUnknown, err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return r, fmt.Errorf("fence: %w: %w", ErrUnknown, err)
	}
	if n == 0 {
		return r, fmt.Errorf("fence: no row taken: %w", &StaleError{What: "row", Token: uint64(token)})
	}
	return r, nil
}

// number is the token as databases keep numbers: signed.
func number(h Holder) (int64, error) {
	if err := check(h); err != nil {
		return 0, err
	}
	if h.Token() > math.MaxInt64 {
		return 0, fmt.Errorf("token %d is too large for a column of 64 bits with a sign", h.Token())
	}
	return int64(h.Token()), nil
}
