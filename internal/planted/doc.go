// Command planted puts many planted bugs into one copy of the tree, so that a test binary has to be built once for all of them:
//
//	go run ./internal/planted TREE PATCH...
//
// It rewrites TREE in place. Each function that a patch changes is kept beside its patched version, and which of the two is called says the name
// of the program, up to the first dot: the name of the patch. So the processes that a test starts of its own binary have the bug as well.
// Nothing else differs from a tree with that one patch applied.
//
// It prints the names of the patches that are in, one a line. What a patch changes beside the bodies of functions (types, constants, imports, a
// function's parameters) cannot be chosen at run time: such a patch is left out, as is one that does not apply, and has to be planted by itself.
//
// It promises that a bug that it has put in is there when the program has its name, and only then (TestMux). It does not look at what it puts in: that the
// named test then fails is for planted/run.sh to show.
//
// Concurrency and timing: a program that runs once and ends.
package main
