// Package cli is the quorate command: everything that cmd/quorate does, as one function that tests can call.
//
//	code := cli.Main(ctx, []string{"members", "workers", "-j"}, os.Environ(), os.Stdin, os.Stdout, os.Stderr)
//
// How a call goes through it:
//
//  1. [Main] takes the words as they were typed. words.go orders them, whatever their order was, into application
//     flags, command, its flags, `--`, positionals, and carries beside what followed the user's own `--`. It answers
//     unknown commands and flags, missing values and stray arguments itself: one line on standard error, exit code 2.
//  2. urfave/cli takes the ordered words apart and calls the command. It never sees words it could misread, prints
//     nothing and never exits the process.
//  3. A [call] is what the command gets: its arguments, its flags, the three streams and the environment.
//     call.connect (connect.go) makes the connection that the settings ask for.
//  4. The error that the command returns becomes one line and an exit code (errors.go).
//
// One table (table.go) holds every command: names, arguments, flags, examples, exit codes, what it needs. The order of
// words and the help come from it. A command lives in one file named after it, which
// ends in a function that returns its entry, and is listed in commands(). A flag's name means the same kind of flag
// (with a value, without, repeated) in every command, and an application flag and a command flag never share a name:
// only so can words be ordered before the command is known.
//
// Words. `--flag value`, `--flag=value` and `-f value` are the same; a flag without a value is `--flag` or
// `--flag=false`. A value that begins with '-' is written `--flag=-1`. All after the first `--` is taken as it is, as
// arguments.
//
// Settings. A flag wins over its variable, a variable over the NATS context (the selected one too), setting by setting.
// Of user and password, token, creds and nkey the strongest source that gives any decides which kind is used. With
// no server, credentials or context from anywhere, quorate uses the NATS server of this host (one-host embedded).
//
// Completion. The scripts of `quorate completion` ask by words of their own, which [Main] answers before anything else: what stands on the line is data, and no
// command's run is ever called for it (TestCompleteRunsNothing; TestBash, TestZsh and TestFish press TAB in real shells, with the build tag "shells"). Names are looked up
// for 0.3 s at most, by reads alone, and only words that no shell reads anything into are offered.
//
// Promises: a call never prints a stack, never exits the process, and no request takes longer than --timeout. Errors are
// one line. Secrets (passwords, tokens, the user part of a URL) are in no message. Event lines (events.go) are each
// written by a single Write, so lines of several processes that append to one file do not mix.
//
// What `join` prints proves what was held (journal.go): a share from the time of its `assigned` line to the until of its
// `revoked` line, a leadership likewise; the lines of all processes of one machine together prove L1, L2 and P1 to P3.
// Package internal/eventcheck does that; `demo` uses it on what it has just shown. Tests: TestSharesProcesses, TestPausedProcesses,
// TestHostPausedProcesses, with processes that are killed and stopped.
//
// `run` keeps C1 and C2: its CMD, and all that has started, is gone when the right ends, or is released (TestRunCut, TestRunStopped, TestRunKilled,
// TestRunGuardianKilled, TestRunGuardianStopped, TestRunStubborn, TestRunLeftBehind).
//
// Not promised: the wording of messages and tables. Programs read JSON (-o json) and exit codes.
//
// Concurrency: Main may be called from several goroutines at once with different streams; there is no state outside a
// call. The writer of events is safe for concurrent use.
package cli
