// Command tests reads the output of go test -json and prints what a reader wants of it: the line of each package, all that
// failed tests said, and how many tests ran. It fails when a test failed, was skipped, or none ran at all: a check that
// did not run proves nothing.
//
// The race detector's own runtime dies now and then, in the timers of synctest bubbles ("ThreadSanitizer: CHECK failed", or a bare
// SIGSEGV: the detector is the only code here that is not Go, whose own faults are panics), which says nothing about the code under test, nor that it is right: those packages are written to the file named by -again, one a line, to be run
// again, and if nothing else failed the exit code is 3.
package main
