package loopback

import (
	"net/netip"
	"testing"
)

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		slot                                         int
		services, dns, machine0, machine1, balancers string
	}{
		{0, "127.96.0.0/16", "127.96.0.10", "198.18.0.0/24", "198.18.1.0/24", "127.240.0.0/24"},
		{3, "127.99.0.0/16", "127.99.0.10", "198.18.192.0/24", "198.18.193.0/24", "127.240.3.0/24"},
		{4, "127.100.0.0/16", "127.100.0.10", "198.19.0.0/24", "198.19.1.0/24", "127.240.4.0/24"},
		{7, "127.103.0.0/16", "127.103.0.10", "198.19.192.0/24", "198.19.193.0/24", "127.240.7.0/24"},
	} {
		p := Plan{c.slot}
		got := []string{p.Services().String(), p.DNS().String(), p.Machine(0).String(), p.Machine(1).String(), p.LoadBalancers().String()}
		want := []string{c.services, c.dns, c.machine0, c.machine1, c.balancers}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("slot %d: got %s, want %s", c.slot, got[i], want[i])
			}
		}
	}
}

func TestMapping(t *testing.T) {
	for from, to := range map[string]string{
		"198.18.1.2": "127.18.1.2", "198.19.255.254": "127.19.255.254", "::ffff:198.18.1.2": "127.18.1.2",
		"198.20.0.1": "198.20.0.1", "127.96.0.1": "127.96.0.1", "::1": "::1",
	} {
		if got := Map(netip.MustParseAddr(from)).String(); got != to {
			t.Errorf("Map(%s) = %s, want %s", from, got, to)
		}
	}
	for addr, want := range map[string]bool{"127.18.0.1": true, "127.19.9.9": true, "127.20.0.1": false, "127.96.0.1": true, "127.103.0.1": true, "127.104.0.1": false, "127.240.7.1": true, "127.240.8.1": false, "127.0.0.1": false, "198.18.0.1": false, "::1": false} {
		if IsCluster(netip.MustParseAddr(addr)) != want {
			t.Errorf("IsCluster(%s) != %v", addr, want)
		}
	}
	for port, want := range map[uint16]uint16{0: 0, 80: 10080, 1023: 11023, 1024: 1024, 8080: 8080} {
		if got := Port(port); got != want {
			t.Errorf("Port(%d) = %d, want %d", port, got, want)
		}
	}
}

func TestServed(t *testing.T) {
	for from, to := range map[string]string{
		"127.96.1.2:80": "127.96.1.2:10080", "127.96.1.2:8080": "127.96.1.2:8080", "127.96.1.2:10000": "127.96.1.2:10000",
		"127.96.1.2:10080": "127.104.1.2:10080", "127.103.1.2:11023": "127.111.1.2:11023", "127.103.1.2:11024": "127.103.1.2:11024",
		"127.240.7.1:10443": "127.241.7.1:10443", "127.18.1.2:443": "127.18.1.2:10443", "127.18.1.2:10250": "127.18.1.2:10250",
		"127.104.1.2:10080": "127.104.1.2:10080", "127.0.0.1:10080": "127.0.0.1:10080",
	} {
		if got := Served(netip.MustParseAddrPort(from)).String(); got != to {
			t.Errorf("Served(%s) = %s, want %s", from, got, to)
		}
	}
	seen := map[netip.AddrPort]int{}
	for port := 1; port < 1<<16; port++ {
		at := Served(netip.AddrPortFrom(Plan{}.DNS(), uint16(port)))
		if seen[at] != 0 || at.Port() < 1024 {
			t.Fatalf("ports %d and %d are both served at %v", seen[at], port, at)
		}
		seen[at] = port
	}
	for _, beside := range []string{"127.104.0.1", "127.111.0.1", "127.241.7.1"} {
		if !IsBeside(netip.MustParseAddr(beside)) {
			t.Errorf("%s is not beside a Service", beside)
		}
	}
	for _, other := range []string{"127.112.0.1", "127.241.8.1", "127.96.0.1", "::1"} {
		if IsBeside(netip.MustParseAddr(other)) {
			t.Errorf("%s is beside a Service", other)
		}
	}
}
