//go:build containers && linux

package containers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Three containers that are named, configured and confined as the pods of deploy/kubernetes are, started in every order: the first waits, the second
// makes a majority, and all are ready. (A name that has no container does not resolve, as that of a pod that is not there.)
func TestPodsInEveryOrder(t *testing.T) {
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	p := &project{t: t, dir: dir, name: "quorate-pods"}
	p.build()
	manifest, err := os.ReadFile(filepath.Join(dir, "deploy", "kubernetes", "quorate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, must := range []string{"args: [server, --config, /etc/quorate/cluster.json]", "name: QUORATE_LOCAL", "runAsUser: 65532", "readOnlyRootFilesystem: true", "drop: [ALL]"} {
		if !strings.Contains(string(manifest), must) {
			t.Fatalf("the manifest does not say %q any more: mend what is done here too", must)
		}
	}
	config := filepath.Join(t.TempDir(), "cluster.json")
	if err := os.WriteFile(config, []byte(block(t, string(manifest), "  cluster.json: |\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			p := &project{t: t, dir: dir, name: fmt.Sprintf("quorate-pods-%d-%d%d%d", os.Getpid(), order[0], order[1], order[2]), changed: make(chan struct{})}
			p.docker("network", "create", p.name)
			t.Cleanup(func() {
				for i := range 3 {
					_, _ = output(p.dir, "docker", "rm", "--force", "--volumes", fmt.Sprintf("%s-%d", p.name, i)) // it may not have been made
				}
				p.docker("network", "rm", p.name)
			})
			var pods []*container
			for n, i := range order {
				pod := fmt.Sprintf("quorate-%d", i)
				c := &container{p: p, name: pod}
				c.id = p.docker("run", "--detach", "--name", fmt.Sprintf("%s-%d", p.name, i), "--network", p.name, "--hostname", pod,
					"--network-alias", pod+".quorate.quorate.svc.cluster.local", "--env", "QUORATE_LOCAL="+pod,
					"--user", "65532:65532", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
					"--volume", config+":/etc/quorate/cluster.json:ro", "--volume", "/var/lib/quorate", "quorate:local", "server", "--config", "/etc/quorate/cluster.json")
				pods = append(pods, c)
				p.await(pod+" listens", func() bool {
					if c.inspect("{{.State.Running}}") != "true" {
						t.Fatalf("%s does not run", pod)
					}
					err := c.check()
					return err == nil || !strings.Contains(err.Error(), "refused")
				})
				if n == 0 {
					if err := c.check(); err == nil {
						t.Errorf("%s is ready, and alone", pod)
					}
				}
			}
			for _, c := range pods {
				p.await(c.name+" is ready", func() bool { return c.check() == nil })
			}
		})
	}
}

// check is the pod's readiness probe.
func (c *container) check() error {
	_, err := output(c.p.dir, "docker", "exec", c.id, "/quorate", "check", "--ready", "--server", "nats://127.0.0.1:4222", "--timeout", "2s")
	return err
}

// block is the text of a YAML block that begins after the line, without its indentation.
func block(t *testing.T, text, after string) string {
	_, rest, ok := strings.Cut(text, after)
	if !ok {
		t.Fatalf("no %q in the manifest", after)
	}
	var b strings.Builder
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "    ") {
			break
		}
		b.WriteString(line[4:])
	}
	return b.String()
}
