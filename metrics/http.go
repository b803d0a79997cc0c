package metrics

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves the metrics of these collectors, and of the Go runtime and the process, for programs that have no registry of their own: the `quorate` command
// does. Others register a Metrics where their own metrics are.
func Handler(all ...prometheus.Collector) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(all...)
	// A scrape that comes while several are under way is refused: whoever reaches the address cannot keep the process busy with them.
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError})
}

// A Program is what the `quorate` command tells of itself beside [Metrics].
type Program struct {
	Version string
	Command string
	Ready   func() bool
	Server  func() (Server, bool) // nil: it runs no NATS server; false: it does not run yet
}

// A Server is what a NATS server in the process tells.
type Server struct {
	Clients, Routes, LeafNodes int
	Store                      uint64 // bytes of JetStream's file storage
	Memory                     uint64 // bytes of its memory storage
}

var (
	ofProgram = described([]family{
		{name: "quorate_build_info", kind: gauge, labels: []string{"version", "goversion", "command"}, help: "Always 1: which version and command this is."},
		{name: "quorate_ready", kind: gauge, help: "1 while /readyz says that the command is ready, else 0."},
	})
	ofServer = described([]family{
		{name: "quorate_server_clients", kind: gauge, help: "Clients connected to this NATS server."},
		{name: "quorate_server_routes", kind: gauge, help: "Connections to the other servers of its cluster."},
		{name: "quorate_server_leafnodes", kind: gauge, help: "Leaf nodes connected to it."},
		{name: "quorate_server_store_bytes", kind: gauge, help: "Bytes that JetStream keeps in files."},
		{name: "quorate_server_memory_bytes", kind: gauge, help: "Bytes that JetStream keeps in memory."},
	})
)

// Describe implements [prometheus.Collector].
func (p *Program) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range ofProgram {
		ch <- f.desc
	}
	if p.Server != nil {
		for _, f := range ofServer {
			ch <- f.desc
		}
	}
}

// Collect implements [prometheus.Collector].
func (p *Program) Collect(ch chan<- prometheus.Metric) {
	put := func(f family, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, value, labels...)
	}
	put(ofProgram[0], 1, p.Version, runtime.Version(), p.Command)
	put(ofProgram[1], number(p.Ready()))
	if p.Server == nil {
		return
	}
	s, runs := p.Server()
	if !runs {
		return
	}
	for i, v := range []float64{float64(s.Clients), float64(s.Routes), float64(s.LeafNodes), float64(s.Store), float64(s.Memory)} {
		put(ofServer[i], v)
	}
}
