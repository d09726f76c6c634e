package sockets

import (
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/loopback"
)

// socket is a program's socket, duplicated.
type socket struct{ fd, family, kind int }

func (s socket) close() { unix.Close(s.fd) }

func (s socket) six() bool { return s.family == unix.AF_INET6 }

// takes tells whether the kernel would take this address on this socket, IPv6 ones on IPv6 sockets only.
func (s socket) takes(a netip.AddrPort) bool {
	return s.six() || s.family == unix.AF_INET && a.Addr().Is4()
}

// name is the socket's own address; zero when it has none.
func (s socket) name() netip.AddrPort {
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return unsockaddr(name)
}

func (s socket) bind(a netip.AddrPort) error { return unix.Bind(s.fd, sockaddr(a, s.six())) }

// onlySix tells whether the socket refuses IPv4.
func (s socket) onlySix() bool {
	return s.six() && option(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) == 1
}

// openToFour makes an unbound IPv6 socket take IPv4, which all cluster addresses are.
func (s socket) openToFour() {
	if s.onlySix() { // fails on a bound one, as the call will
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
}

func option(fd, level, name int) int {
	value, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		return -1
	}
	return value
}

func (l *listener) bind() {
	raw, err := l.sockaddr(l.n.Args[1], l.n.Args[2])
	if err != nil {
		l.done(0, err)
		return
	}
	a, ok := parseBind(raw)
	switch {
	case l.bindUnix(raw):
		return
	case !ok:
		l.pass()
		return
	}
	target, changed := l.policy.bind(a)
	if !changed {
		if l.policy.refuses(a.Addr()) {
			l.done(0, unix.EADDRNOTAVAIL)
			return
		}
		l.pass()
		return
	}
	s, err := l.socket()
	if err != nil {
		l.done(0, err)
		return
	}
	defer s.close()
	switch {
	case !s.takes(a), s.kind == unix.SOCK_DGRAM && a.Port() == 0 && a.Addr().Unmap().IsUnspecified():
		l.pass() // an error of the program's; a client's socket, which may talk to the outside too
	case s.onlySix() && !a.Addr().Is4In6():
		l.done(0, s.bindAside(target))
	default:
		l.done(0, s.bind(target))
	}
}

// listen gives a pod's socket that was never bound the pod's address: the kernel would take all of the machine's.
func (l *listener) listen() {
	if l.policy.Kind != Pod {
		l.pass()
		return
	}
	s, err := l.socket()
	if err != nil {
		l.done(0, err)
		return
	}
	defer s.close()
	if s.family != unix.AF_INET && !s.six() {
		l.pass()
		return
	}
	at := s.name().Addr().Unmap()
	switch {
	case !at.IsUnspecified() && at != localhost4 && !l.policy.refuses(at):
		l.pass()
		return
	case s.name().Port() != 0: // of a connection to the outside that was not made
		err = unix.EADDRNOTAVAIL
	case s.onlySix():
		err = s.bindAside(netip.AddrPortFrom(l.policy.Address, 0))
	default:
		err = s.bind(netip.AddrPortFrom(l.policy.Address, 0))
	}
	if err != nil {
		l.done(0, err)
		return
	}
	l.pass()
}

// bindAside is for the second listener, for IPv6, of programs that have one for IPv4 too. The pod's address is IPv4; theirs
// succeeds at an address that nobody uses.
func (s socket) bindAside(target netip.AddrPort) error {
	err := s.bind(netip.AddrPortFrom(localhost6, 0))
	if errors.Is(err, unix.EADDRNOTAVAIL) { // no IPv6 on this machine
		s.openToFour()
		err = s.bind(netip.AddrPortFrom(target.Addr(), 0))
	}
	return err
}

func (l *listener) connect() {
	raw, err := l.sockaddr(l.n.Args[1], l.n.Args[2])
	if err != nil {
		l.done(0, err)
		return
	}
	a, ok := parse(raw)
	switch {
	case l.connectUnix(raw):
		return
	case !ok:
		l.pass()
		return
	}
	if target, changed := l.policy.connect(a); !changed && !l.policy.source(target).IsValid() {
		l.connectOutside()
		return
	}
	s, err := l.socket()
	if err != nil {
		l.done(0, err)
		return
	}
	if !s.takes(a) {
		s.close()
		l.pass()
		return
	}
	target := l.target(s, a)
	if endpoint, known := l.endpoint(s, a, target); known {
		target = endpoint
	}
	if !target.IsValid() {
		s.close()
		l.done(0, unix.ECONNREFUSED)
		return
	}
	s.openToFour()
	if source := l.policy.source(target); source.IsValid() {
		s.claim(source)
	} else {
		l.release(s)
	}
	l.carryOut(s, sockaddr(target, s.six()))
}

// endpoint chooses where a connection to a Service goes, which the proxy serves at an address; an invalid one where there is none to
// choose from. Datagrams go by the proxy: answers must come from where the program has sent to, and a flow moves on when its
// endpoint goes.
func (l *listener) endpoint(s socket, a, served netip.AddrPort) (netip.AddrPort, bool) {
	if s.kind != unix.SOCK_STREAM || !loopback.IsCluster(a.Addr()) || loopback.IsMapped(a.Addr()) {
		return netip.AddrPort{}, false
	}
	return l.services.Choose(netip.AddrPortFrom(served.Addr().Unmap(), served.Port()))
}

// connectOutside lets a connection go where the program wants it.
func (l *listener) connectOutside() {
	if l.policy.Kind == Pod {
		s, err := l.socket()
		if err != nil {
			l.done(0, err)
			return
		}
		l.release(s)
		s.close()
	}
	l.pass()
}

// release takes a stream's address away. A socket that its program has bound to any address and port has the pod's by now, from which
// nothing leads out of the machine. Only the end of a connection makes the kernel let go of a port, so that there is one: to port 0,
// where nobody can listen. A port that the program has chosen stays, and the connection fails.
func (l *listener) release(s socket) {
	if l.policy.Kind != Pod || s.kind != unix.SOCK_STREAM || s.name().Addr().Unmap() != l.policy.Address {
		return
	}
	nowhere := sockaddr(netip.AddrPortFrom(localhost4, 0), s.six())
	flags, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0)
	if err != nil {
		return
	}
	if err := unix.Connect(s.fd, nowhere); errors.Is(err, unix.EINPROGRESS) && flags&unix.O_NONBLOCK != 0 {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, 100)
		_ = unix.Connect(s.fd, nowhere) // takes the refusal
	}
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	_ = s.bind(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
}

// carryOut connects. A blocking socket may have to wait for room in the server's queue, rarely: it is given one tick, in which
// a connection within the machine is made, and waits on a goroutine of its own after that.
func (l *listener) carryOut(s socket, target unix.Sockaddr) {
	connect := func() (int, error) { return 0, unix.Connect(s.fd, target) }
	flags, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0)
	if s.kind == unix.SOCK_DGRAM || err != nil || flags&unix.O_NONBLOCK != 0 {
		_, err := connect()
		s.close()
		l.done(0, err)
		return
	}
	limit, err := unix.GetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO)
	if err != nil {
		limit = &unix.Timeval{}
	}
	_ = unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 1})
	_, err = connect()
	_ = unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, limit)
	full := s.family == unix.AF_UNIX && errors.Is(err, unix.EAGAIN)
	if full || errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EINTR) {
		l.aside(s.fd, connect)
		return
	}
	s.close()
	l.done(0, err)
}

// claim gives a connecting socket that has no address the pod's. A stream's port is left to the kernel at connect.
func (s socket) claim(source netip.Addr) {
	own := s.name()
	if !own.IsValid() || !own.Addr().Unmap().IsUnspecified() {
		return
	}
	switch {
	case s.kind == unix.SOCK_STREAM && own.Port() == 0:
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	case s.kind == unix.SOCK_DGRAM && own.Port() != 0:
		disconnect(s.fd) // gives a port back that the kernel chose, so that the address can be bound with it
	case s.kind != unix.SOCK_DGRAM:
		return
	}
	_ = s.bind(netip.AddrPortFrom(source, own.Port()))
}

// disconnect forgets a socket's peer and all of its address that was not bound on purpose.
func disconnect(fd int) {
	none := unix.RawSockaddrAny{} // AF_UNSPEC
	_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unix.SizeofSockaddrInet4)
}
