// Package metrics makes Prometheus metrics of what a program does with quorate, by the hooks of its namespaces:
//
//	m := metrics.New()
//	prometheus.MustRegister(m)
//	ns, err := quorate.Open(ctx, nc, quorate.Config{Hooks: m.Hooks()})
//	http.Handle("/metrics", promhttp.Handler())
//
// docs/operations.md has a table of all metrics; deploy/grafana/quorate.json is a dashboard of them.
//
// # What it promises
//
//   - Each metric of the table exists, and no other does (TestEveryMetricAppears, TestTable). Names follow Prometheus' rules (TestNames).
//   - It holds up nothing: what happens is told on a goroutine of the namespace's own; a scrape waits for no network.
//
// # What it does not promise
//
// That all processes show the same: each shows its own rights, and what only a leader knows (the roster, generations, verdicts) the leader shows, so
// that a sum or a maximum over processes is what a group has. That nothing is missed: a namespace drops events when they come faster than
// they can be counted, and says how many (quorate_events_dropped_total). That a gauge is as new as the right: what counts is Live.
//
// # Labels
//
// Each metric has the namespace, and the group or the election that it is about; the other one of the two is empty, which to Prometheus is none. The members of one process
// in one group, as a bloc gateway has many, are counted together. A program that takes part in thousands of elections has as many series of each metric of
// elections; those of durations are for all of a namespace together.
//
// # Concurrency
//
// All functions may be called from any goroutine. One Metrics may serve any number of namespaces.
package metrics
