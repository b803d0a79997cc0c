package inner

import (
	"runtime/debug"
	"sync"
)

// Version of this module as it was built: a release's, or "(devel)"; "" if the build does not say.
var Version = sync.OnceValue(func() string {
	const module = "github.com/quorate/quorate"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	if info.Main.Path == module {
		return info.Main.Version
	}
	for _, d := range info.Deps {
		if d.Path == module {
			return d.Version
		}
	}
	return ""
})
