package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// A serverLog is what the server logs to. It also keeps the first fatal error: the server tells of a failed start in its
// log only (its own logger ends the process there; ours must not).
type serverLog struct {
	log         *slog.Logger
	notices     slog.Level
	noPasswords bool // leaves out its remark on passwords

	mu    sync.Mutex
	first string
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Log(context.Background(), l.notices, line(format, v))
}

func (l *serverLog) Warnf(format string, v ...any) {
	if text := line(format, v); !(l.noPasswords && strings.Contains(text, "Plaintext passwords detected")) {
		l.log.Warn(text)
	}
}

func (l *serverLog) Errorf(format string, v ...any) { l.log.Error(line(format, v)) }
func (l *serverLog) Debugf(format string, v ...any) { l.log.Debug(line(format, v)) } // only if the server was told to
func (l *serverLog) Tracef(string, ...any)          {}                               // would hold payloads

func (l *serverLog) Fatalf(format string, v ...any) {
	text := line(format, v)
	l.log.Error(text)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == "" {
		l.first = text
	}
}

// fatal is the first fatal error, or "".
func (l *serverLog) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func line(format string, v []any) string {
	return "nats-server: " + strings.TrimSpace(fmt.Sprintf(format, v...))
}
