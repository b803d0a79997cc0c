package inner

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// TestHooksCostNothing: what a namespace without hooks does with events and spans is one comparison each.
func TestHooksCostNothing(t *testing.T) {
	n, ctx, cause := &Namespace{Name: "default"}, context.Background(), errors.New("over")
	for name, fn := range map[string]func(){
		"event": func() {
			n.Note(Note{Kind: NoteShareEnded, Group: "workers", Member: "a", Generation: 7, Reason: "settling", Cause: cause, Took: time.Second})
		},
		"span": func() {
			_, end := n.Span(ctx, Span{Op: OpDecide, Group: "workers", Member: "a", Topic: "open the valve", Ballot: "b"})
			end(SpanEnd{Err: cause, Answer: "yes"})
		},
		"inject": func() { n.Inject(ctx) },
	} {
		if got := testing.AllocsPerRun(100, fn); got != 0 {
			t.Errorf("%s: %v allocations without a hook, want none", name, got)
		}
	}
}

func BenchmarkNoHooks(b *testing.B) {
	n, ctx := &Namespace{Name: "default"}, context.Background()
	b.ReportAllocs()
	for b.Loop() {
		n.Note(Note{Kind: NoteRenewal, Group: "workers", Member: "a", Term: 7, Answer: "yes", Took: time.Second})
		_, end := n.Span(ctx, Span{Op: OpSend, Group: "workers", To: "all", Topic: "text"})
		end(SpanEnd{})
	}
}

// TestNotesWaitForNobody: a hook that does not return costs notes, and nothing else.
func TestNotesWaitForNobody(t *testing.T) {
	called, release, told := make(chan struct{}), make(chan struct{}), []Note{}
	once := sync.OnceFunc(func() { close(called) })
	n := &Namespace{Name: "default"}
	n.notes = newNotes(n.Name, func(e Note) {
		once()
		<-release
		told = append(told, e)
	})
	const more = 100
	for i := range maxNotes + more + 1 {
		n.Note(Note{Kind: NoteHeartbeat, Count: i})
		if i == 0 {
			<-called // with the first one alone: whatever was put before that would be taken with it
		}
	}
	bounded, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.EndNotes(bounded); !errors.Is(err, context.Canceled) {
		t.Errorf("ended while the hook stands still: %v", err)
	}
	n.Note(Note{Kind: NoteHeartbeat}) // after the end: nobody is told
	close(release)
	if err := n.EndNotes(context.Background()); err != nil {
		t.Fatal(err)
	}
	last, dropped := -1, 0
	for _, e := range told {
		switch {
		case e.Namespace != "default" || e.Time.IsZero():
			t.Fatalf("a note without its namespace or time: %+v", e)
		case e.Kind == NoteDropped:
			dropped += e.Count
		case e.Count <= last:
			t.Fatalf("note %d came after %d", e.Count, last)
		default:
			last = e.Count
		}
	}
	if len(told)-1+dropped != maxNotes+more+1 || dropped < more {
		t.Errorf("told %d and dropped %d of %d", len(told)-1, dropped, maxNotes+more+1)
	}
}
