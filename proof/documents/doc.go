// Package documents does what the documents say, word for word, and compares what they show with what comes. It is tests only, behind the build
// tag "docs".
//
//	go test -tags docs ./proof/documents -count=1
//	go test -tags docs ./proof/documents -count=1 -run 'TestPages/first-ten-minutes' -v
//
// Pages are docs/first-ten-minutes.md and docs/guides. In them
//
//   - ```sh is run in the reader's shell, and must end well (unless it shows exit codes by $?);
//   - ```sh terminal 2 is run in a terminal of that name, and may go on running;
//   - ```text below it is what comes, as a whole; below a terminal's commands what comes first, and ```text terminal 2 what comes next there.
//     A line `...` stands for any lines, `...` within one for any text; times, durations, tokens, ballots' ids and the widths of columns are not compared;
//   - ```go NAME.go is written into the reader's directory; Go without a name is compiled: functions as they stand, statements in a function that has a context ctx, a connection nc,
//     a namespace ns, a client c and a group g;
//   - <!-- run: ... --> says what the text around asks for and no shell can: `a NATS server` (one is there), `afresh` (a new machine), `end terminal 2`
//     (Ctrl-C), `kill terminal 2` (kill -9), `stop terminal 2` and `go on terminal 2` (SIGSTOP, SIGCONT).
//
// What is in any other fence is not run: commands for other machines stand in ```shell. That all commands in documents are there tests package cli, names in them internal/house.
//
// A page starts on a machine of its own: an empty home, nothing set, a directory of its own, and the ports that it names are replaced by free ones. Three things are
// otherwise than at a reader's: `go install ...@latest` installs the tree, a module made with `go mod init` has the tree in place
// of a version from the proxy, and modules come out of the module cache. Needs Linux and bash.
//
// Promised: each page was run, to its end, and left nothing running. On a machine so busy that a lease of one second runs out something else comes than is shown, as it must: a page has three tries, beside those in which this process was held up itself. Not promised: how long anything takes; all is waited for, for minutes if need be.
package documents
