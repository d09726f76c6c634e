package vip

import (
	"net/netip"
	"path/filepath"
	"testing"

	"labkit.dev/embedded/services"
)

// TestPodsFindWhatTheProxyServes publishes rules and reads them as a pod's shim does.
func TestPodsFindWhatTheProxyServes(t *testing.T) {
	path := filepath.Join(t.TempDir(), services.FileName)
	c := New(Config{Table: path})
	served, node := netip.MustParseAddrPort("127.96.1.1:10080"), netip.MustParseAddrPort("127.18.1.1:30080")
	backend := Backend{Address: netip.MustParseAddrPort("127.18.1.5:8080")}
	rule := Rule{Port: "default/web:http", Backends: []Backend{backend}}
	rules := map[Listen]Rule{{"tcp", served}: rule, {"tcp", node}: rule, {"udp", netip.MustParseAddrPort("127.96.1.2:5353")}: rule}
	if err := c.publish(rules, map[netip.Addr]string{netip.MustParseAddr("198.18.1.0"): "worker-1", netip.MustParseAddr("198.18.2.0"): "worker-2"}); err != nil {
		t.Fatal(err)
	}
	pod := services.NewChooser(path, netip.MustParseAddr("127.18.1.9"), false)
	if got, known := pod.Choose(served); got != backend.Address || !known {
		t.Error(got, known)
	}
	for name, other := range map[string]netip.AddrPort{"a node port": node, "UDP": netip.MustParseAddrPort("127.96.1.2:5353")} {
		if got, known := pod.Choose(other); known {
			t.Errorf("%s: %v", name, got)
		}
	}
	if err := c.publish(map[Listen]Rule{}, nil); err != nil {
		t.Fatal(err)
	}
	if got, known := pod.Choose(served); known {
		t.Error("after the Service has gone: ", got)
	}
	if err := New(Config{Table: "/no/such/folder/table"}).publish(rules, nil); err == nil {
		t.Error("a table that cannot be written is no error")
	}
	if err := New(Config{}).publish(rules, nil); err != nil {
		t.Error("no table is wanted: ", err)
	}
}
