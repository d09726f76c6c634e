package vip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	udpIdle    = 60 * time.Second // a flow without datagrams is forgotten after this, as conntrack does
	udpMaximum = 65535            // bytes of a datagram
)

// udpRelay forwards one UDP listener: a flow per client address, each with its own socket to one endpoint.
type udpRelay struct {
	proxy *Proxy
	rule  *listener
	conn  *net.UDPConn

	mu     sync.Mutex
	flows  map[netip.AddrPort]*udpFlow
	closed bool
}

type udpFlow struct {
	backend netip.AddrPort
	server  net.Conn
	back    func() // gives its place back
}

func newUDPRelay(p *Proxy, l *listener, conn *net.UDPConn) *udpRelay {
	return &udpRelay{proxy: p, rule: l, conn: conn, flows: map[netip.AddrPort]*udpFlow{}}
}

func (r *udpRelay) run() {
	buffer := make([]byte, udpMaximum)
	for {
		n, client, err := r.conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		if flow := r.flow(client); flow != nil {
			_ = flow.server.SetReadDeadline(time.Now().Add(udpIdle))
			_, _ = flow.server.Write(buffer[:n])
		}
	}
}

// flow returns the client's flow, made new when there is none or when its endpoint is no longer usable; nil drops.
func (r *udpRelay) flow(client netip.AddrPort) *udpFlow {
	r.mu.Lock()
	defer r.mu.Unlock()
	rule := r.rule.rule.Load()
	if old := r.flows[client]; old != nil {
		for _, b := range r.proxy.eligible(rule, client.Addr().Unmap()) {
			if b.Address == old.backend {
				return old
			}
		}
		old.server.Close()
		delete(r.flows, client)
	}
	if r.closed {
		return nil
	}
	backend, ok := r.proxy.pick(rule, client.Addr().Unmap())
	if !ok {
		r.proxy.stats.noEndpoint.Inc()
		return nil
	}
	back, taken, _ := r.proxy.budget.take(rule.Port)
	if !taken {
		r.proxy.refuse(rule.Port)
		return nil
	}
	server, err := dialer.DialUDP(context.Background(), "udp4", r.proxy.source(client.Addr().Unmap()), backend.Address)
	if err != nil {
		back()
		r.proxy.stats.dialErrors.Inc()
		return nil
	}
	flow := &udpFlow{backend.Address, server, back}
	r.flows[client] = flow
	r.proxy.stats.connections.Inc()
	_ = server.SetReadDeadline(time.Now().Add(udpIdle))
	go r.answer(client, flow)
	return flow
}

// answer relays an endpoint's datagrams back until the flow is idle, refused or replaced.
func (r *udpRelay) answer(client netip.AddrPort, flow *udpFlow) {
	buffer := make([]byte, udpMaximum)
	for {
		n, err := flow.server.Read(buffer)
		if err != nil {
			break
		}
		_ = flow.server.SetReadDeadline(time.Now().Add(udpIdle))
		if _, err := r.conn.WriteToUDPAddrPort(buffer[:n], client); err != nil {
			break
		}
	}
	flow.server.Close()
	r.mu.Lock()
	if r.flows[client] == flow {
		delete(r.flows, client)
	}
	r.mu.Unlock()
	flow.back()
}

func (r *udpRelay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.conn.Close()
	for _, flow := range r.flows {
		flow.server.Close()
	}
}
