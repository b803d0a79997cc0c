package cli

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/quorate/quorate/internal/wire"
)

// hook runs a command that a flag names, by the shell, with an event line on its standard input, and returns what it prints, also when it fails. It
// is killed when ctx ends, with all that it has started. QUORATE_GROUP and QUORATE_MEMBER tell it who it works for, env more; its
// standard error is this command's.
func (m *member) hook(ctx context.Context, command string, line []byte, env ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	ownGroup(cmd)
	cmd.WaitDelay = time.Second // for what it leaves behind with its standard output open
	for k, v := range m.c.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	slices.Sort(cmd.Env)
	cmd.Env = append(append(cmd.Env, "QUORATE_GROUP="+m.group, "QUORATE_MEMBER="+m.cfg.ID), env...)
	out := &bounded{most: wire.MaxData}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(line), out, m.c.stderr
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return out.b.Bytes(), fmt.Errorf("%s: %w", command, err)
	case out.over:
		return nil, fmt.Errorf("%s: it printed more than %d bytes", command, out.most)
	}
	return out.b.Bytes(), nil
}

// bounded keeps the first bytes written to it, and notes whether there were more.
type bounded struct {
	b    bytes.Buffer
	most int
	over bool
}

func (w *bounded) Write(p []byte) (int, error) {
	n := min(len(p), w.most-w.b.Len())
	w.over = w.over || n < len(p)
	w.b.Write(p[:n])
	return len(p), nil
}
