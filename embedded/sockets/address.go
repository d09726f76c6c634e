package sockets

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// parse reads an IPv4 or IPv6 socket address as a program passes it; false for other families and for addresses that are too
// short, which the kernel refuses.
func parse(raw []byte) (netip.AddrPort, bool) {
	if len(raw) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(raw[2:])
	switch binary.NativeEndian.Uint16(raw) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port), true
	case unix.AF_INET6:
		if len(raw) >= unix.SizeofSockaddrInet6-4 { // the scope may be missing
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), port), true
		}
	}
	return netip.AddrPort{}, false
}

// parseBind is parse for bind, in which the kernel takes an IPv4 address without a family too, if it is any address.
func parseBind(raw []byte) (netip.AddrPort, bool) {
	if len(raw) >= unix.SizeofSockaddrInet4 && binary.NativeEndian.Uint16(raw) == unix.AF_UNSPEC {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), binary.BigEndian.Uint16(raw[2:]))
		return a, a.Addr().IsUnspecified()
	}
	return parse(raw)
}

// sockaddr is an address in the form that a socket of the family takes: IPv4 addresses are mapped for IPv6 sockets.
func sockaddr(a netip.AddrPort, six bool) unix.Sockaddr {
	if six {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}
}

// unsockaddr is the inverse of sockaddr.
func unsockaddr(name unix.Sockaddr) netip.AddrPort {
	switch n := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(n.Addr), uint16(n.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(n.Addr), uint16(n.Port))
	}
	return netip.AddrPort{}
}
