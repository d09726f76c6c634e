// Package loopback is the address plan of the embedded cluster.
//
// Pods and machines have addresses of 198.18.0.0/15, a range reserved for benchmarks (RFC 2544), because Kubernetes
// refuses loopback addresses in endpoints. Each is served at its mapped address: 198.18.a.b at 127.18.a.b, 198.19.a.b at
// 127.19.a.b. Services and LoadBalancers have loopback addresses as they are. A port below 1024 of any of these is served
// 10000 higher, because a plain user may not open it. A Service's own ports 10001 to 11023 make room for those: they are served
// at an address beside the Service's, 127.104.a.b for 127.96.a.b and 127.241.a.b for 127.240.a.b.
package loopback

import "net/netip"

// Slots is how many clusters can run side by side on one machine.
const Slots = 8

// LowPorts is what is added to a port below 1024.
const LowPorts = 10000

// Plan is what one slot's cluster may use.
type Plan struct{ Slot int }

// Services is the range of ClusterIPs.
func (p Plan) Services() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(96 + p.Slot), 0, 0}), 16)
}

// DNS is the ClusterIP of cluster DNS.
func (p Plan) DNS() netip.Addr { return netip.AddrFrom4([4]byte{127, byte(96 + p.Slot), 0, 10}) }

// Machine is the range of machine i: 0 is the control plane, nodes count from 1. The machine's own address is the first one.
func (p Plan) Machine(i int) netip.Prefix {
	n := p.Slot*64 + i
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + n>>8), byte(n), 0}), 24)
}

// LoadBalancers is the range of LoadBalancer addresses.
func (p Plan) LoadBalancers() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 240, byte(p.Slot), 0}), 24)
}

// IsPod tells whether an address is of the pods' and machines' range (not mapped).
func IsPod(a netip.Addr) bool {
	b := a.Unmap()
	return b.Is4() && b.As4()[0] == 198 && b.As4()[1]&0xfe == 18
}

// IsMapped tells whether an address is the mapped one of a pod or machine.
func IsMapped(a netip.Addr) bool {
	b := a.Unmap()
	return b.Is4() && b.As4()[0] == 127 && b.As4()[1]&0xfe == 18
}

// IsCluster tells whether an address is one that a cluster listens on: a mapped pod, a Service or a LoadBalancer.
func IsCluster(a netip.Addr) bool {
	a = a.Unmap()
	return IsMapped(a) || isService(a)
}

// isService tells whether an IPv4 address is a Service's or a LoadBalancer's.
func isService(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	return b[0] == 127 && (b[1] >= 96 && b[1] < 96+Slots || b[1] == 240 && b[2] < Slots)
}

// Map is the loopback address at which a pod's address is served; other addresses are returned as they are.
func Map(a netip.Addr) netip.Addr {
	if !IsPod(a) {
		return a
	}
	b := a.Unmap().As4()
	b[0] = 127
	return netip.AddrFrom4(b)
}

// Port is the port at which a port of a cluster address is served.
func Port(p uint16) uint16 {
	if p > 0 && p < 1024 {
		return p + LowPorts
	}
	return p
}

// Served is where a port of a cluster address, in its mapped form, is served. No two ports of a Service are served at one place.
func Served(a netip.AddrPort) netip.AddrPort {
	address, port := a.Addr().Unmap(), a.Port()
	if isService(address) && port > LowPorts && port < LowPorts+1024 {
		b := address.As4()
		if b[1] == 240 {
			b[1] = 241
		} else {
			b[1] += Slots
		}
		return netip.AddrPortFrom(netip.AddrFrom4(b), port)
	}
	return netip.AddrPortFrom(address, Port(port))
}

// IsBeside tells whether an address is one at which Served serves some ports of Services.
func IsBeside(a netip.Addr) bool {
	a = a.Unmap()
	if !a.Is4() {
		return false
	}
	b := a.As4()
	return b[0] == 127 && (b[1] >= 96+Slots && b[1] < 96+2*Slots || b[1] == 241 && b[2] < Slots)
}
