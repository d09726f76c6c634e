package vip

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// stats counts what the proxy did since its start.
type stats struct {
	registry *prometheus.Registry
	refused  *prometheus.CounterVec // by Service port

	connections, noEndpoint, dialErrors, limited, listenErrors prometheus.Counter
}

const metricPrefix = "labkit_vip_"

func newStats(p *Proxy) *stats {
	s := &stats{registry: prometheus.NewRegistry()}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: metricPrefix + name, Help: help})
		s.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, value func() float64) {
		s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metricPrefix + name, Help: help}, value))
	}
	s.connections = counter("connections_total", "Connections and UDP flows taken.")
	s.noEndpoint = counter("no_endpoint_total", "Connections without a usable endpoint.")
	s.dialErrors = counter("dial_errors_total", "Connections that the endpoint refused.")
	s.limited = counter("limited_total", "Connections put off or dropped at a limit.")
	s.listenErrors = counter("listen_errors_total", "Failed attempts to listen.")
	gauge("listeners", "Service addresses listened on.", func() float64 { return float64(p.listening()) })
	gauge("connections_active", "Open connections and UDP flows.", func() float64 { return float64(p.budget.held()) })
	s.refused = prometheus.NewCounterVec(prometheus.CounterOpts{Name: metricPrefix + "refused_total",
		Help: "Connections and UDP flows refused because their Service port holds too many."}, []string{"service"})
	s.registry.MustRegister(s.refused)
	return s
}

// handler serves the counters in Prometheus' text format.
func (s *stats) handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{})
}
