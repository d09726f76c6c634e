// Package services is how pods choose an endpoint of a Service by themselves: the Service proxy publishes a table of Services and
// their usable endpoints in a file, and whoever carries out a pod's connection to a ClusterIP looks it up there. So the
// connection is the pod's own to the endpoint, and a refusal is the endpoint's.
package services

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// FileName is the table's name in the state directory of a cluster.
const FileName = "services.json"

// Table is what the proxy knows. Addresses are those that are dialled on this machine.
type Table struct {
	// Nodes are the ranges of pods' addresses and whose they are.
	Nodes map[netip.Prefix]string `json:"nodes"`
	// Ports are the TCP ports of Services' addresses, as the proxy serves them. One without any usable endpoint need not be there.
	Ports map[netip.AddrPort]Port `json:"ports"`
}

// Port is a port of a Service.
type Port struct {
	Name     string        `json:"name"` // namespace/service:port
	Affinity time.Duration `json:"affinity,omitempty"`
	// OnNode are the endpoints for clients on each node, where not all have the same. Other clients get Endpoints.
	OnNode    map[string][]netip.AddrPort `json:"on_node,omitempty"`
	Endpoints []netip.AddrPort            `json:"endpoints"`
}

// Node is the node of a pod's address; "" when it is none's.
func (t *Table) Node(a netip.Addr) string {
	for bits := 32; bits > 0; bits-- {
		prefix, err := a.Prefix(bits)
		if err != nil {
			return ""
		}
		if name, ok := t.Nodes[prefix]; ok {
			return name
		}
	}
	return ""
}

// Publisher writes the table to a file.
type Publisher struct {
	Path string
	last string
}

// Publish replaces the file whole, if the table has changed. It is private to the user.
func (p *Publisher) Publish(t Table) error {
	text, err := json.Marshal(t)
	if err != nil || string(text) == p.last {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(p.Path), FileName+".*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // where it was not renamed
	_, err = file.Write(text)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), p.Path)
	}
	if err == nil {
		p.last = string(text)
	}
	return err
}
