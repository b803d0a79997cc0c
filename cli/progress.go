package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// What takes no longer than that shows no progress.
const progressAfter = time.Second

// A progress shows on a terminal that something is under way, and how far it is. It is gone before anything else is printed.
type progress struct {
	out  io.Writer // nil: not a terminal, nothing is shown
	stop chan struct{}
	wg   sync.WaitGroup
	once sync.Once

	mu    sync.Mutex
	began time.Time
	text  string
	done  int
	of    int // 0: nobody knows
}

// startProgress begins to show progress, on standard error if that is a terminal; of is how many steps there are, 0 if nobody knows.
func (a *app) startProgress(text string, of int) *progress {
	p := &progress{stop: make(chan struct{}), began: time.Now(), text: text, of: of}
	if terminal(a.stderr) && a.env["TERM"] != "dumb" {
		p.out = a.stderr
		p.wg.Go(func() { p.show(a.width()) })
	}
	return p
}

// step says what is done now, and how many steps are behind.
func (p *progress) step(text string, done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.done = text, done
}

// end takes it away. It may be called more than once.
func (p *progress) end() {
	p.once.Do(func() {
		close(p.stop)
		p.wg.Wait()
	})
}

func (p *progress) show(width int) {
	select {
	case <-p.stop:
		return
	case <-time.After(progressAfter):
	}
	most := p.of
	if most == 0 {
		most = -1 // a spinner
	}
	bar := progressbar.NewOptions(most,
		progressbar.OptionSetWriter(p.out), progressbar.OptionSetWidth(20), progressbar.OptionSpinnerType(14), progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish(), progressbar.OptionSetRenderBlankState(true), progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionUseANSICodes(true))
	defer func() { _ = bar.Clear() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		text, done := p.text, p.done
		p.mu.Unlock()
		text = fmt.Sprintf("%s %ds", text, int(time.Since(p.began).Seconds()))
		bar.Describe(cut(oneLine(text), max(width, 80)-32)) // what the bar takes
		if p.of == 0 {
			_ = bar.Add(1) // whatever is wrong with a terminal shows elsewhere
		} else {
			_ = bar.Set(min(done, p.of-1)) // a full one would take itself away
		}
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
	}
}
