// Package containers breaks what compose.yaml brings up, and proves from what the containers print that no guarantee was broken. It is
// tests only, behind the build tag "containers"; docs/docker.md has the table of what is run, and what was last seen.
//
//	go test -tags containers ./proof/containers -count=1 -timeout 15m
//
// Needs Linux, root, a Docker Engine, Docker Compose v2 (QUORATE_COMPOSE names its binary; default: `docker compose`), and the Debian packages
// iptables and util-linux (nsenter). No registry: the image is made from a binary built here (BINARY=prebuilt).
//
// It is the very compose.yaml of the repository, under a project name of its own, with a port for the web page and a shorter lease. Faults come one
// after the other, each when all is well, and all has to be well again after it.
//
// Promised: L1, L2, P1, P2, P3 hold over the lines of all workers (internal/eventcheck), and each fault really happened: a container died, was
// paused, had no network, a rule dropped packets, the stream had another leader. That all is well again is waited for, for minutes if need be.
//
// Not promised: how soon anything happens. The table shows it, as seen on one machine.
package containers
