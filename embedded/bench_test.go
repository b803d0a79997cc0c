//go:build unix

package embedded

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
)

// From nothing to a connection, in this process: the part of the command's cold start that is this package's.
func BenchmarkColdStart(b *testing.B) {
	ctx := context.Background()
	tmp := b.TempDir()
	for i := 0; b.Loop(); i++ {
		h, err := OpenHost(ctx, HostOptions{Dir: filepath.Join(tmp, fmt.Sprint(i))})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := h.Connect(ctx); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := h.Close(ctx); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// From nothing to a connection in a new process, its start included.
func BenchmarkColdStartProcess(b *testing.B) {
	tmp := b.TempDir()
	for i := 0; b.Loop(); i++ {
		p := startHost(b, filepath.Join(tmp, fmt.Sprint(i)))
		b.StopTimer()
		p.kill()
		b.StartTimer()
	}
}

// From the kill of the serving process to the answer that another one gets from the next server.
func BenchmarkTakeOver(b *testing.B) {
	dir := b.TempDir()
	a := startHost(b, dir)
	a.ask("put k one")
	for b.Loop() {
		b.StopTimer()
		next := startHost(b, dir)
		next.ask("get k")
		b.StartTimer()
		a.kill()
		if got := next.ask("get k"); got != "one 1" {
			b.Fatalf("got %q, want the data of before", got)
		}
		a = next
	}
}
