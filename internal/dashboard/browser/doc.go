// Package browser looks at the page of `quorate web` in a real browser: Chromium without a window, and members that are real processes. It has tests only, and
// is a module of its own: what drives a browser is not part of quorate.
//
//	go test ./...                       # needs chromium, or chromium-headless-shell, from Debian or elsewhere
//	go test -run TestPicture -picture   # draws docs/web.png anew
//
// What the tests show: a kill -9 appears on the page by itself (TestKill); a vote and a step-down can be done from it, also without a mouse (TestVote, TestKeyboard) and
// without JavaScript (TestNoScript); every control, chart and live region has a name and a role in the browser's own accessibility tree (TestNames); every
// text has a contrast of 4.5 in both schemes (TestContrast); nothing is wider than a telephone (TestNarrow); the page breaks no rule of its own policy (all of them).
package browser
