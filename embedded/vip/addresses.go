package vip

import (
	"fmt"
	"net/netip"

	"labkit.dev/embedded/loopback"
)

// PlanOf returns the address plan of slot 0 to 7.
func PlanOf(slot int) (loopback.Plan, error) {
	if slot < 0 || slot >= loopback.Slots {
		return loopback.Plan{}, fmt.Errorf("slot %d: there are slots 0 to %d", slot, loopback.Slots-1)
	}
	return loopback.Plan{Slot: slot}, nil
}

// lowPort is the first port that everybody may listen on.
const lowPort = 1024

// pods is the range of all pods and machines of a plan.
func pods(p loopback.Plan) netip.Prefix { return netip.PrefixFrom(p.Machine(0).Addr(), 18) }

// controlPlane is the control plane's own address in the pod range.
func controlPlane(p loopback.Plan) netip.Addr { return p.Machine(0).Addr().Next() }

// unmapped is the inverse of loopback.Map.
func unmapped(a netip.Addr) netip.Addr {
	b := a.As4()
	if b[0] == 127 && b[1]&0xfe == 18 {
		b[0] = 198
		return netip.AddrFrom4(b)
	}
	return a
}
