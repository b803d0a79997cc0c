// Command bench measures quorate beside etcd's concurrency package and hashicorp's memberlist, in one run: both sides by
// turns, on the same disk, so that what disturbs one disturbs the other. docs/benchmarks.md has the method and the numbers.
//
//	cd bench && go run . [-run REGEXP] [-quick] [-json | -markdown | -update FILE] [-dir DIR] [-profile DIR]
//
// It is a module of its own, so that the peers stay out of quorate's go.mod. Each benchmark is one file and one line of the
// table in main.go; harness.go, process.go and report.go are shared.
//
// What crashes here is a process of its own that is killed with SIGKILL: this program starts itself again in another
// role. Servers are such processes as well, one for each side and benchmark, and end with it.
//
// It measures and asserts nothing about time; its tests run everything with tiny numbers and look only whether the
// results make sense.
package main
