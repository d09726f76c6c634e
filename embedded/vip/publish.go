package vip

import (
	"net/netip"
	"os"
	"path/filepath"

	"labkit.dev/embedded/loopback"
	"labkit.dev/embedded/services"
	"labkit.dev/embedded/supervise"
)

// tablePath is where pods look for the table of Services; "" when we have no supervisor, and so no pods.
func tablePath() string {
	if dir := os.Getenv(supervise.Variable); dir != "" {
		return filepath.Join(dir, services.FileName)
	}
	return ""
}

// publish tells the pods. It comes before the listeners change: a pod that looks finds what is usable now.
func (c *Controller) publish(rules map[Listen]Rule, nodes map[netip.Addr]string) error {
	if c.config.Table == "" {
		return nil
	}
	return c.table.Publish(table(rules, nodes))
}

// table is what pods need to choose endpoints by themselves: all rules of TCP but those of nodes' own ports.
func table(rules map[Listen]Rule, nodes map[netip.Addr]string) services.Table {
	out := services.Table{Nodes: map[netip.Prefix]string{}, Ports: map[netip.AddrPort]services.Port{}}
	for first, name := range nodes {
		out.Nodes[rangeOf(loopback.Map(first))] = name
	}
	for key, rule := range rules {
		if key.Network == "tcp" && !loopback.IsMapped(key.Address.Addr()) {
			out.Ports[key.Address] = published(rule)
		}
	}
	return out
}

func published(rule Rule) services.Port {
	out := services.Port{Name: rule.Port, Affinity: rule.Affinity, Endpoints: addresses(rule.Backends)}
	if len(rule.OnNode) > 0 {
		out.OnNode = map[string][]netip.AddrPort{}
		for node, backends := range rule.OnNode {
			out.OnNode[node] = addresses(backends)
		}
	}
	return out
}

func addresses(backends []Backend) []netip.AddrPort {
	out := make([]netip.AddrPort, len(backends))
	for i, b := range backends {
		out[i] = b.Address
	}
	return out
}
