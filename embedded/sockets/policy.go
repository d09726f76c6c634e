// Package sockets gives unmodified programs the network of a pod without privileges.
//
// A seccomp filter in the program's processes hands bind, connect and sends with an address to this package
// (seccomp_unotify(2)), which carries them out on the program's own socket with the address rewritten by a Policy.
// Open connections are never touched. What programs see is not rewritten: a socket's own address is the mapped one, and answers of
// name servers come from cluster DNS's real address and port (musl's resolver refuses those; glibc, Go and c-ares take them).
// This is no isolation: a program that wants to can get around it.
package sockets

import (
	"fmt"
	"net/netip"

	"labkit.dev/embedded/loopback"
)

// Kinds of policy.
const (
	Pod    = "pod"    // a pod's processes: own localhost, all ports, cluster addresses, cluster DNS
	Host   = "host"   // control plane and kubelets: cluster addresses only
	Client = "client" // a person's shell: cluster addresses and cluster DNS
)

// Policy tells how addresses are rewritten.
type Policy struct {
	Kind string `json:"kind"`
	// Address is the pod's mapped loopback address. Of the other kinds, a pod on its node's network has the node's, by which
	// other pods know it, and can answer its datagrams.
	Address netip.Addr `json:"address,omitzero"`
	// DNS is the address of cluster DNS, port 53; for Pod and Client.
	DNS netip.AddrPort `json:"dns,omitzero"`
	// Services is the file with the table of Services; without one, connections to Services go by the proxy.
	Services string `json:"services,omitempty"`
}

var (
	localhost4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	localhost6 = netip.IPv6Loopback()
)

// own tells whether an address means "this machine" to a program: localhost or unspecified.
func own(a netip.Addr) bool {
	return a == localhost4 || a == localhost6 || a.IsUnspecified()
}

// check tells what the policy lacks.
func (p Policy) check() error {
	switch {
	case p.Kind != Pod && p.Kind != Host && p.Kind != Client:
		return fmt.Errorf("socket policy: no kind %q", p.Kind)
	case (p.Kind == Pod || p.Address.IsValid()) && !(p.Address.Is4() && loopback.IsCluster(p.Address)):
		return fmt.Errorf("socket policy: %v is not the mapped address of a pod", p.Address)
	case p.DNS.IsValid() && !p.DNS.Addr().Is4():
		return fmt.Errorf("socket policy: cluster DNS at %v", p.DNS)
	}
	return nil
}

// bind is the address to bind instead of a; false when it stays as it is.
func (p Policy) bind(a netip.AddrPort) (netip.AddrPort, bool) {
	mapped := loopback.Map(a.Addr().Unmap())
	if p.Kind == Pod {
		if !own(mapped) && mapped != p.Address {
			return a, false // other loopback addresses as asked; the kernel refuses what is not ours
		}
		mapped = p.Address
	}
	return p.served(a, mapped)
}

// refuses tells whether a pod may not bind an address, as it is the machine's and not the pod's.
func (p Policy) refuses(a netip.Addr) bool {
	a = a.Unmap()
	return p.Kind == Pod && !a.IsLoopback() && !a.IsMulticast()
}

// connect is the address to connect or send to instead of a; false when it stays as it is.
func (p Policy) connect(a netip.AddrPort) (netip.AddrPort, bool) {
	mapped := loopback.Map(a.Addr().Unmap())
	switch {
	case a.Port() == 53 && p.Kind != Host && p.DNS.IsValid() && !loopback.IsCluster(mapped): // a name server outside the cluster
		return netip.AddrPortFrom(p.DNS.Addr(), loopback.Port(p.DNS.Port())), true
	case p.Kind == Pod && own(mapped):
		mapped = p.Address
	}
	return p.served(a, mapped)
}

// served is where a cluster address, in its mapped form, is served; false when that is no change from a.
func (p Policy) served(a netip.AddrPort, mapped netip.Addr) (netip.AddrPort, bool) {
	if !loopback.IsCluster(mapped) {
		return a, false
	}
	out := loopback.Served(netip.AddrPortFrom(mapped, a.Port()))
	return out, out != netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// source is the address that a connecting socket gets when it has none, so that peers see the pod's; invalid where there is none.
func (p Policy) source(target netip.AddrPort) netip.Addr {
	if loopback.IsCluster(target.Addr()) || loopback.IsBeside(target.Addr()) {
		return p.Address
	}
	return netip.Addr{}
}
