// Package house holds the rules of this repository as tests: which package may import which, what a pure machine may not
// touch, that every package says what it promises, and that the documents name only what exists.
//
// It has no code of its own. A rule that stops somebody is changed here, in the commit that needs it, with the reason:
//
//	imports_test.go    the directions of imports (docs/decisions.md says where they differ from the first design)
//	packages_test.go   package comments, sleeps, skips and unfinished marks, the module file
//	documents_test.go  README, docs/guarantees.md and planted/ against the code
//
// The tests read source text; they import nothing of quorate, so that they fail with a sentence and not by a cycle.
package house
