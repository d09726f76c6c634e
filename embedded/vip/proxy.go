package vip

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// Listen is one address that the proxy serves, as clients dial it on this machine.
type Listen struct {
	Network string // "tcp" or "udp"
	Address netip.AddrPort
}

// Backend is one endpoint.
type Backend struct {
	Address netip.AddrPort // as dialled on this machine
}

// Rule tells where the connections to a Listen go.
type Rule struct {
	Port     string // namespace/service:port; listeners of one Service port share its session affinity
	Affinity time.Duration
	Backends []Backend
	// OnNode are the endpoints for clients on each node, where not all have the same: the Service's traffic policy or topology
	// says so. A client on a node that is missing, or on none, gets Backends.
	OnNode map[string][]Backend
}

// served tells whether there is an endpoint for any client.
func (r Rule) served() bool {
	for _, backends := range r.OnNode {
		if len(backends) > 0 {
			return true
		}
	}
	return len(r.Backends) > 0
}

// simplified leaves OnNode out where it makes no difference.
func (r Rule) simplified() Rule {
	for _, backends := range r.OnNode {
		if !slices.Equal(backends, r.Backends) {
			return r
		}
	}
	r.OnNode = nil
	return r
}

// Proxy forwards connections from Service addresses to endpoints in user space. As kube-proxy does, it picks one usable
// endpoint at random per connection, never tries another one when that refuses, refuses at once when there is none
// (no listener then), and leaves open connections alone when endpoints come and go.
type Proxy struct {
	log    *slog.Logger
	nodeOf func(netip.Addr) string // name of the node that an address belongs to, or ""
	budget *budget
	stats  *stats

	mu        sync.Mutex
	listeners map[Listen]*listener
	affinity  map[string]*affinity
	closed    bool

	lines rate.Sometimes // about accepting
}

type listener struct {
	rule  atomic.Pointer[Rule]
	close func()
}

// NewProxy returns a proxy that holds at most limit connections and UDP flows at once; nodeOf finds a client's node.
func NewProxy(limit int, nodeOf func(netip.Addr) string, log *slog.Logger) *Proxy {
	p := &Proxy{log: log, lines: rate.Sometimes{Interval: logPause}, nodeOf: nodeOf, budget: newBudget(limit), listeners: map[Listen]*listener{}, affinity: map[string]*affinity{}}
	p.stats = newStats(p)
	return p
}

// Apply makes the proxy serve exactly rules. Listeners that stay keep their connections and so do those that go. It
// returns the addresses that could not be listened on; the caller tries again.
func (p *Proxy) Apply(rules map[Listen]Rule) map[Listen]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	for key, l := range p.listeners {
		if _, wanted := rules[key]; !wanted {
			l.close()
			delete(p.listeners, key)
		}
	}
	failed := map[Listen]error{}
	used := map[string]bool{}
	for key, rule := range rules {
		used[rule.Port] = true
		if l := p.listeners[key]; l != nil {
			l.rule.Store(&rule)
			continue
		}
		l := &listener{}
		l.rule.Store(&rule)
		err := p.listen(key, l)
		if err != nil && key.Address.Port() < lowPort && errors.Is(err, fs.ErrPermission) {
			continue // served at the shifted port only
		}
		if err != nil {
			failed[key] = err
			p.stats.listenErrors.Inc()
			continue
		}
		p.listeners[key] = l
	}
	for port := range p.affinity {
		if !used[port] {
			delete(p.affinity, port)
		}
	}
	for _, port := range p.budget.forget(used) {
		p.stats.refused.DeleteLabelValues(port)
	}
	return failed
}

// Close stops listening. Open connections go on until the process ends.
func (p *Proxy) Close() {
	p.Apply(nil)
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
}

func (p *Proxy) listening() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.listeners)
}

func (p *Proxy) listen(key Listen, l *listener) error {
	if key.Network == "udp" {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(key.Address))
		if err != nil {
			return err
		}
		relay := newUDPRelay(p, l, conn)
		l.close = relay.close
		go relay.run()
		return nil
	}
	socket, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(key.Address))
	if err != nil {
		return err
	}
	l.close = func() { socket.Close() }
	go p.accept(socket, l)
	return nil
}

func (p *Proxy) accept(socket *net.TCPListener, l *listener) {
	for {
		client, err := socket.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, for one
			p.stats.limited.Inc()
			p.lines.Do(func() { p.log.Error("cannot take connections", "service", l.rule.Load().Port, "error", err) })
			time.Sleep(acceptPause)
			continue
		}
		rule := l.rule.Load()
		back, taken := p.place(rule.Port)
		if !taken {
			reset(client)
			continue
		}
		p.stats.connections.Inc()
		go func() {
			defer back()
			p.serve(client, rule)
		}()
	}
}

const (
	acceptPause = 50 * time.Millisecond // after a failed accept
	placePause  = 10 * time.Millisecond // until a full Service port is looked at again
)

// place takes a place for a new connection. Where the Service port is full, its new clients wait in the kernel's queue behind
// this one, and are refused when that does not end.
func (p *Proxy) place(port string) (back func(), taken bool) {
	for waited := false; ; waited = true {
		back, taken, wait := p.budget.take(port)
		switch {
		case taken:
			return back, true
		case !wait:
			p.refuse(port)
			return nil, false
		case !waited:
			p.stats.limited.Inc()
		}
		time.Sleep(placePause)
	}
}

// refuse counts a connection or flow for which there is no place.
func (p *Proxy) refuse(port string) {
	p.stats.limited.Inc()
	p.stats.refused.WithLabelValues(port).Inc()
	p.budget.refuse(port, func(refused, held int) {
		p.log.Warn("a Service holds too many connections: new ones are refused", "service", port, "held", held, "refused", refused)
	})
}

// dialTimeout bounds a connection attempt; on one machine it is refused or accepted at once.
const dialTimeout = 10 * time.Second

func (p *Proxy) serve(client *net.TCPConn, rule *Rule) {
	from := client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	backend, ok := p.pick(rule, from)
	if !ok {
		p.stats.noEndpoint.Inc()
		reset(client)
		return
	}
	server, err := dialer.DialTCP(context.Background(), "tcp4", p.source(from), backend.Address)
	if err != nil {
		p.stats.dialErrors.Inc()
		p.log.Debug("endpoint refused", "service", rule.Port, "endpoint", backend.Address, "error", err)
		reset(client)
		return
	}
	join(client, server)
}

// dialer makes connections whose port is chosen at connect, so that the ports of one source address are not used up.
var dialer = net.Dialer{Timeout: dialTimeout, Control: func(_, _ string, raw syscall.RawConn) error {
	var err error
	return errors.Join(raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}), err)
}}

// source is the address to dial from for a client: pods keep theirs, as they do behind kube-proxy.
func (p *Proxy) source(client netip.Addr) netip.AddrPort {
	if p.nodeOf(client) == "" {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(client, 0)
}
