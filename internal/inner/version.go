package inner

import (
	"runtime/debug"
	"strings"
	"sync"
)

// Version of this module as it was built: a release's, or "devel"; "" if the build does not say.
var Version = sync.OnceValue(func() string {
	const module = "github.com/quorate/quorate"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	if info.Main.Path == module {
		return strings.Trim(info.Main.Version, "()")
	}
	for _, d := range info.Deps {
		if d.Path == module {
			return strings.Trim(d.Version, "()")
		}
	}
	return ""
})
