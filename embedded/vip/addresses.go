package vip

import (
	"fmt"
	"net/netip"
)

// Plan is the address plan of one cluster slot: which addresses it may serve.
type Plan struct {
	Services netip.Prefix // ClusterIPs
	Pods     netip.Prefix // pods and nodes, as Kubernetes sees them
	Balanced netip.Prefix // LoadBalancer addresses
}

// slots is how many clusters one machine can run.
const slots = 8

// lowPort is the first port that everybody may listen on; ports below it are served shifted.
const (
	lowPort   = 1024
	portShift = 10000
)

// PlanOf returns the plan of slot 0 to 7.
func PlanOf(slot int) (Plan, error) {
	if slot < 0 || slot >= slots {
		return Plan{}, fmt.Errorf("slot %d: there are slots 0 to %d", slot, slots-1)
	}
	return Plan{
		Services: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(96 + slot), 0, 0}), 16),
		Pods:     netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + slot/4), byte(slot % 4 * 64), 0}), 18),
		Balanced: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 240, byte(slot), 0}), 24),
	}, nil
}

// allPods is the range of the pods of all clusters; its addresses are never dialled, only mapped.
var allPods = netip.MustParsePrefix("198.18.0.0/15")

// mapped is the loopback address at which an address of the pod range is served; others are served at themselves.
func mapped(a netip.Addr) netip.Addr {
	if !allPods.Contains(a) {
		return a
	}
	b := a.As4()
	b[0] = 127
	return netip.AddrFrom4(b)
}

// unmapped is the inverse of mapped.
func unmapped(a netip.Addr) netip.Addr {
	b := a.As4()
	if b[0] == 127 && (b[1] == 18 || b[1] == 19) {
		b[0] = 198
		return netip.AddrFrom4(b)
	}
	return a
}

// served is where a port of a cluster address is served.
func served(a netip.Addr, port uint16) netip.AddrPort {
	if port > 0 && port < lowPort {
		port += portShift
	}
	return netip.AddrPortFrom(a, port)
}
