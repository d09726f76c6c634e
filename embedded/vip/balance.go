package vip

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// affinityLimit bounds the clients remembered per Service port.
const affinityLimit = 4096

// affinity remembers which endpoint a client was given (sessionAffinity: ClientIP).
type affinity struct {
	mu      sync.Mutex
	clients map[netip.Addr]remembered
}

type remembered struct {
	backend netip.AddrPort
	until   time.Time
}

// pick chooses an endpoint for a client: the remembered one while it is usable, else one at random.
func (p *Proxy) pick(rule *Rule, client netip.Addr) (Backend, bool) {
	backends := p.eligible(rule, client)
	if len(backends) == 0 {
		return Backend{}, false
	}
	if rule.Affinity <= 0 {
		return backends[rand.IntN(len(backends))], true
	}
	p.mu.Lock()
	table := p.affinity[rule.Port]
	if table == nil {
		table = &affinity{clients: map[netip.Addr]remembered{}}
		p.affinity[rule.Port] = table
	}
	p.mu.Unlock()
	return table.pick(backends, client, rule.Affinity, time.Now()), true
}

// eligible are the rule's endpoints for a client.
func (p *Proxy) eligible(rule *Rule, client netip.Addr) []Backend {
	if len(rule.OnNode) > 0 {
		if backends, known := rule.OnNode[p.nodeOf(client)]; known {
			return backends
		}
	}
	return rule.Backends
}

func (a *affinity) pick(backends []Backend, client netip.Addr, timeout time.Duration, now time.Time) Backend {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.clients[client]
	at := slices.IndexFunc(backends, func(b Backend) bool { return b.Address == old.backend })
	if at < 0 || now.After(old.until) {
		at = rand.IntN(len(backends))
	}
	if len(a.clients) >= affinityLimit {
		for key, r := range a.clients {
			if now.After(r.until) || len(a.clients) >= affinityLimit {
				delete(a.clients, key)
			}
		}
	}
	a.clients[client] = remembered{backends[at].Address, now.Add(timeout)}
	return backends[at]
}
