//go:build unix

// Command fenced-sql shows why a leader's writes carry its token. Two processes take turns as leader and write a report into an SQLite
// database. The first is stopped between asking whether it still leads and writing; the second takes over and writes; then the first goes
// on, and its late write reaches the database, which refuses it.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	_ "modernc.org/sqlite"

	"github.com/quorate/quorate"
	"github.com/quorate/quorate/embedded"
	"github.com/quorate/quorate/fence"
	"github.com/quorate/quorate/leader"
)

// open gives the database and its guard. Both processes open the same file.
func open(ctx context.Context, file string) (*sql.DB, fence.SQL, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(30000)&_txlock=immediate")
	if err != nil {
		return nil, fence.SQL{}, err
	}
	_, err = db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS report (id TEXT PRIMARY KEY, body TEXT NOT NULL)")
	guard := fence.SQL{DB: db}
	if err == nil {
		err = guard.Init(ctx) // a table with the highest token of each scope
	}
	return db, guard, err
}

// work is what each of the two processes does: lead, and write while it leads. Before each write it waits for a line, so that whoever
// started it can stop it at the worst moment.
func work(ctx context.Context, id, url, file string) error {
	db, guard, err := open(ctx, file)
	if err != nil {
		return err
	}
	defer db.Close()
	nc, err := nats.Connect(url, quorate.Options(time.Second)...)
	if err != nil {
		return err
	}
	defer nc.Close()
	ns, err := quorate.Open(ctx, nc, quorate.Config{Lease: time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer ns.Close(ctx)
	e, err := leader.New(ns, "reports", leader.Config{ID: id})
	if err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	return e.Run(ctx, func(_ context.Context, t *leader.Term) error {
		fmt.Println("leads")
		for t.Live() {
			fmt.Println("has asked: it leads, and may write")
			if _, err := in.ReadString('\n'); err != nil {
				return nil // nobody is there any more
			}
			// With t in place of the bare token, Tx would ask once more and mostly see for itself that it is too late. But however late one
			// asks, there is a moment between the question and the commit; here it is a long one.
			err := guard.Tx(context.Background(), "reports", fence.Token(t.Token()), func(tx *sql.Tx) error {
				_, err := tx.Exec("INSERT INTO report VALUES ('daily', ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body", "by "+id)
				return err
			})
			switch {
			case errors.Is(err, fence.ErrStale):
				fmt.Println("was refused:", err)
				return nil
			case err != nil:
				return err
			}
			fmt.Println("wrote")
		}
		return nil
	})
}

// A worker is one of the processes.
type worker struct {
	id  string
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	to  io.Writer
}

func start(ctx context.Context, w io.Writer, id, url, file string) (*worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), "FENCED_SQL_WORKER="+id, "FENCED_SQL_URL="+url, "FENCED_SQL_FILE="+file)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &worker{id, cmd, in, bufio.NewScanner(out), w}, cmd.Start()
}

// until reads what the worker says, up to a line that begins as given.
func (k *worker) until(begin string) error {
	for k.out.Scan() {
		fmt.Fprintf(k.to, "%s %s\n", k.id, k.out.Text())
		if strings.HasPrefix(k.out.Text(), begin) {
			return nil
		}
	}
	return fmt.Errorf("%s ended before it said %q", k.id, begin)
}

// write lets the worker write, and waits for what it says then.
func (k *worker) write(says string) error {
	if _, err := io.WriteString(k.in, "\n"); err != nil {
		return err
	}
	return k.until(says)
}

// run shows it. It returns what the report says in the end.
func run(ctx context.Context, w io.Writer) (report string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "fenced-sql-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	s, err := embedded.Start(ctx, embedded.Options{StoreDir: filepath.Join(dir, "nats")})
	if err != nil {
		return "", err
	}
	defer s.Close(context.Background())
	file := filepath.Join(dir, "reports.db")

	a, err := start(ctx, w, "a", s.URL(), file)
	if err != nil {
		return "", err
	}
	defer func() { _ = a.cmd.Wait() }() // killed
	defer cancel()                      // kills them first
	if err := errors.Join(a.until("has asked"), a.write("wrote"), a.until("has asked")); err != nil {
		return "", err
	}
	fmt.Fprintln(w, "a is stopped")
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return "", err
	}
	b, err := start(ctx, w, "b", s.URL(), file)
	if err != nil {
		return "", err
	}
	defer func() { _ = b.cmd.Wait() }() // killed
	defer cancel()
	if err := errors.Join(b.until("has asked"), b.write("wrote")); err != nil {
		return "", err
	}
	fmt.Fprintln(w, "a goes on")
	if err := errors.Join(a.cmd.Process.Signal(syscall.SIGCONT), a.write("was refused")); err != nil {
		return "", err
	}
	db, _, err := open(ctx, file)
	if err != nil {
		return "", err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, "SELECT body FROM report WHERE id = 'daily'").Scan(&report)
	return report, err
}

func main() {
	ctx := context.Background()
	if id := os.Getenv("FENCED_SQL_WORKER"); id != "" {
		if err := work(ctx, id, os.Getenv("FENCED_SQL_URL"), os.Getenv("FENCED_SQL_FILE")); err != nil {
			log.Fatal(err)
		}
		return
	}
	report, err := run(ctx, os.Stdout)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the report is", report)
}
