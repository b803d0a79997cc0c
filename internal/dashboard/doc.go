// Package dashboard is the page that `quorate web` serves: groups, members, leaders, shares of the work, a time line and ballots, followed live, with
// step-down, evict and vote.
//
//	d := dashboard.New(dashboard.Config{})
//	go http.Serve(listener, d)
//	err := d.Run(ctx, open)
//
// How it works: a hub watches the namespace's records, once for all groups and all viewers (TestOneWatchForAll), and asks the leader of a group that
// somebody looks at whom it hears. From that a page is made under the hub's lock, drawn by the templates in page.html outside of it, and sent whole, or section by
// section to those who look at live updates, each section only when it has changed. live.js makes the sections of the page like those that are sent, and
// tells times; everything else, acting included, works without it, by links and plain forms.
//
// What it promises (docs/guarantees.md, W1 to W6): forms of other pages do nothing (TestForeignForms); it does not show itself under a foreign name
// (TestForeignHosts); read-only is read-only (TestReadOnly); with a password nothing is shown without it (TestPassword); what comes from the wire is text
// (TestHostile, TestHeaders); what was confirmed is what is done, to nobody else (TestAct). An outage of NATS and a lost bucket are told, with since when, and
// waited out (TestOutage, TestBucketLost). Groups, lines, ballots, viewers and rows have bounds (TestManyGroups, TestLargeGroup, TestSlowViewer).
//
// What it does not promise: what is shown is late by what it takes to be heard and drawn, up to half a second, and in an outage as old as it says. The time
// line knows from records what was before this process was started: generations of the last hour, verdicts, since when somebody leads; earlier leaders
// and who came and went it has seen itself or not at all. It is no proof of anything: events.md and the tokens are.
//
// Timing: with nobody watching, each kind of record is looked at once in two leases, and hints are heard. A viewer is sent at most five updates a second. The
// leader of a group that is looked at is asked each second, and less often if its answer takes longer.
//
// Concurrency: a Dashboard serves any number of requests at once; Run is called once, and returns when everything it has started has ended.
package dashboard
