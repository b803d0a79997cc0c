package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/nats-io/nats.go"
)

// version is set by the linker for releases: -X github.com/quorate/quorate/cli.version=v1.2.3. Never written otherwise.
var version string

// Version is what `quorate version` says: the release, else what the Go toolchain recorded, else "devel".
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			return v
		}
	}
	return "devel"
}

// versionLine is what `version -o json` shows.
type versionLine struct {
	Version  string `json:"version" doc:"of quorate"`
	NATS     string `json:"nats_client" doc:"of the NATS client in it"`
	Go       string `json:"go" doc:"of Go"`
	Platform string `json:"platform" doc:"operating system and processor"`
}

func versionCommand() *command {
	return &command{
		name:    "version",
		section: sectionOther,
		summary: "print the version of quorate",
		about:   "Prints the version of quorate, of its NATS client, and of Go.",
		json:    []shape{{of: versionLine{}}},
		examples: []example{
			{"quorate version", "one line"},
			{"quorate version -j", "the same as a JSON object"},
		},
		run: func(_ context.Context, c *call) error {
			if c.g.json {
				return c.printJSON(versionLine{Version(), nats.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
			}
			return c.print(fmt.Sprintf("quorate %s (nats.go %s, %s, %s/%s)\n",
				Version(), nats.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH))
		},
	}
}
