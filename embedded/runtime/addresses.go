package runtime

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
)

// addresses gives out the pods' addresses. It goes round the range, so that an address is not another pod's at once: a
// client that still has the old one gets no answer instead of a wrong one.
type addresses struct {
	prefix netip.Prefix
	node   netip.Addr
	file   string // keeps the last one over restarts

	mu   sync.Mutex
	last netip.Addr
	used map[netip.Addr]bool
}

func newAddresses(prefix netip.Prefix, node netip.Addr, file string) *addresses {
	a := &addresses{prefix: prefix.Masked(), node: node, file: file, used: map[netip.Addr]bool{}}
	if text, err := os.ReadFile(file); err == nil {
		a.last, _ = netip.ParseAddr(strings.TrimSpace(string(text)))
	}
	if !a.prefix.Contains(a.last) {
		a.last = a.prefix.Addr()
	}
	return a
}

// take gives out the next free address.
func (a *addresses) take() (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.last
	for range 1 << min(16, 32-a.prefix.Bits()) {
		next = next.Next()
		if !a.prefix.Contains(next) {
			next = a.prefix.Addr()
		}
		if a.usable(next) {
			a.last, a.used[next] = next, true
			_ = os.WriteFile(a.file, []byte(next.String()), 0o600) // at worst an address is used again sooner
			return next, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all %d addresses of %s are in use", len(a.used), a.prefix)
}

// usable leaves out the network's, the node's and the broadcast address.
func (a *addresses) usable(addr netip.Addr) bool {
	return addr != a.prefix.Addr() && addr != a.node && a.prefix.Contains(addr.Next()) && !a.used[addr]
}

// keep marks the address of an adopted pod.
func (a *addresses) keep(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used[addr] = true
}

// free takes an address back.
func (a *addresses) free(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, addr)
}
