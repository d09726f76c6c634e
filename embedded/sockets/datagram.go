package sockets

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxMessage = 1 << 20 // bytes of one addressed send; a datagram has at most 64 KiB
	maxVectors = 1024    // of one message, and messages of one call (UIO_MAXIOV)
	maxControl = 4096    // bytes of a message's control data
)

// header is struct msghdr of a 64-bit program.
type header struct {
	Name       uint64
	NameLen    uint32
	_          uint32
	Vectors    uint64
	VectorsLen uint64
	Control    uint64
	ControlLen uint64
	Flags      int32
	_          uint32
}

const (
	headerSize = int(unsafe.Sizeof(header{}))
	manySize   = headerSize + 8 // struct mmsghdr: the header and the length that was sent
)

func (l *listener) sendto() {
	d, concerned, err := l.destination(l.n.Args[4], l.n.Args[5])
	if err != nil {
		l.done(0, err)
		return
	}
	if !concerned {
		l.pass()
		return
	}
	data := make([]byte, min(l.n.Args[2], maxMessage))
	if err := l.read(l.n.Args[1], data); err != nil {
		l.done(0, err)
		return
	}
	s, err := l.socket()
	if err != nil {
		l.done(0, err)
		return
	}
	l.send(s, message{to: l.resolve(s, d), data: data}, int(l.n.Args[3]))
}

func (l *listener) sendmsg() {
	h, err := l.header(l.n.Args[1])
	if err != nil {
		l.pass() // the kernel gives the program the error it deserves
		return
	}
	d, concerned, err := l.destination(h.Name, uint64(h.NameLen))
	if err != nil {
		l.done(0, err)
		return
	}
	if !concerned {
		l.pass()
		return
	}
	s, err := l.socket()
	if err != nil {
		l.done(0, err)
		return
	}
	m, err := l.gather(h, l.resolve(s, d))
	if err != nil {
		s.close()
		closeAll(m.rights)
		l.done(0, err)
		return
	}
	l.send(s, m, int(l.n.Args[2]))
}

// sendmmsg carries out all messages of a call when at least one is to go elsewhere than the program says. Like the kernel it
// stops at the first that fails, and tells the failure when it was the very first. It does not wait for room.
func (l *listener) sendmmsg() {
	count := int(min(l.n.Args[2], maxVectors))
	headers, targets, any := make([]header, count), make([]destination, count), false
	for i := range headers {
		var err error
		if headers[i], err = l.header(l.n.Args[1] + uint64(i*manySize)); err != nil {
			l.pass()
			return
		}
		concerned := false
		if targets[i], concerned, err = l.destination(headers[i].Name, uint64(headers[i].NameLen)); err != nil {
			l.done(0, err)
			return
		}
		any = any || concerned
	}
	if !any {
		l.pass()
		return
	}
	s, err := l.socket()
	if err != nil {
		l.done(0, err)
		return
	}
	defer s.close()
	for i, h := range headers {
		if err = l.sendOne(s, h, l.resolve(s, targets[i]), l.n.Args[1]+uint64(i*manySize+headerSize)); err != nil {
			if i > 0 {
				err = nil
			}
			l.done(i, err)
			return
		}
	}
	l.done(count, nil)
}

// sendOne sends a message of sendmmsg and tells the program its length.
func (l *listener) sendOne(s socket, h header, to destination, length uint64) error {
	m, err := l.gather(h, to)
	defer closeAll(m.rights)
	if err != nil {
		return err
	}
	n, err := s.send(l.policy, m, int(l.n.Args[3])|unix.MSG_DONTWAIT)
	if err != nil {
		return err
	}
	return l.write(length, binary.NativeEndian.AppendUint32(nil, uint32(n)))
}

// destination is where a send goes: to an address, to an abstract Unix socket, or nowhere that we know.
type destination struct {
	address netip.AddrPort
	name    *unix.SockaddrUnix
}

// destination is where a send goes in the program's words; false when we have nothing to do with it. Sends to cluster addresses
// concern us even when they stay, for the sake of their source.
func (l *listener) destination(pointer, length uint64) (d destination, concerned bool, err error) {
	raw, err := l.sockaddr(pointer, length)
	if err != nil {
		return d, false, err
	}
	if d.name = l.policy.abstract(raw); d.name != nil {
		return d, true, nil
	}
	a, ok := parse(raw)
	if !ok {
		return d, false, nil
	}
	target, changed := l.policy.connect(a)
	return destination{address: a}, changed || l.policy.source(target).IsValid(), nil
}

// resolve is where a send really goes.
func (l *listener) resolve(s socket, d destination) destination {
	if d.address.IsValid() {
		d.address = l.target(s, d.address)
	}
	return d
}

// target is where a socket's connection or send to an address goes. A server of the pod that answers 127.0.0.1 answers a program of
// the machine outside of pods: the pod's own programs send from the pod's address.
func (l *listener) target(s socket, a netip.AddrPort) netip.AddrPort {
	to, _ := l.policy.connect(a)
	answers := l.policy.Kind == Pod && s.kind == unix.SOCK_DGRAM && a.Addr().Unmap() == localhost4 && to.Addr() == l.policy.Address
	if answers && s.name().Addr().Unmap() == l.policy.Address && !taken(to) {
		return a
	}
	return to
}

// taken tells whether a program receives datagrams at an address, as far as can be found out.
func taken(a netip.AddrPort) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return unix.Bind(fd, sockaddr(a, false)) != nil
}

// message is one send.
type message struct {
	to      destination
	data    []byte
	control []byte
	rights  []int // descriptors in our process that control passes
}

// send carries out one send and answers the call; on a goroutine of its own when it has to wait.
func (l *listener) send(s socket, m message, flags int) {
	mayWait := flags&unix.MSG_DONTWAIT == 0
	if mayWait {
		status, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0)
		mayWait = err == nil && status&unix.O_NONBLOCK == 0
	}
	wait := func() (int, error) {
		n, err := s.send(l.policy, m, flags)
		if !errors.Is(err, unix.EINTR) { // else it is called again
			closeAll(m.rights)
		}
		return n, err
	}
	if mayWait && s.kind == unix.SOCK_STREAM { // TCP fast open waits for the connection
		l.aside(s.fd, wait)
		return
	}
	n, err := s.send(l.policy, m, flags|unix.MSG_DONTWAIT)
	if mayWait && errors.Is(err, unix.EAGAIN) {
		l.aside(s.fd, wait)
		return
	}
	closeAll(m.rights)
	s.close()
	l.done(n, err)
}

// send sends a message. From a socket without an address it goes out with the pod's.
func (s socket) send(policy Policy, m message, flags int) (int, error) {
	flags |= unix.MSG_NOSIGNAL
	if m.to.name != nil {
		return unix.SendmsgN(s.fd, m.data, m.control, m.to.name, flags)
	}
	var to unix.Sockaddr
	if m.to.address.IsValid() {
		if !s.takes(m.to.address) {
			return 0, unix.EAFNOSUPPORT
		}
		to = sockaddr(m.to.address, s.six())
	}
	if source := policy.source(m.to.address); source.IsValid() {
		s.openToFour()
		switch {
		case s.kind == unix.SOCK_STREAM:
			s.claim(source)
		case len(m.control) == 0 && s.name().Addr().Unmap().IsUnspecified():
			m.control = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: source.As4()})
		}
	}
	return unix.SendmsgN(s.fd, m.data, m.control, to, flags)
}

func (l *listener) header(pointer uint64) (header, error) {
	var raw [headerSize]byte
	if err := l.read(pointer, raw[:]); err != nil {
		return header{}, err
	}
	return *(*header)(unsafe.Pointer(&raw[0])), nil
}

// gather reads the data of a message.
func (l *listener) gather(h header, to destination) (message, error) {
	m := message{to: to}
	if h.VectorsLen > maxVectors || h.ControlLen > maxControl {
		return m, unix.EMSGSIZE
	}
	raw := make([]byte, int(h.VectorsLen)*16)
	if err := l.read(h.Vectors, raw); err != nil {
		return m, err
	}
	for i := range int(h.VectorsLen) {
		vector := *(*[2]uint64)(unsafe.Pointer(&raw[i*16]))
		if vector[1] > maxMessage || uint64(len(m.data))+vector[1] > maxMessage {
			return m, unix.EMSGSIZE
		}
		part := make([]byte, vector[1])
		if err := l.read(vector[0], part); err != nil {
			return m, err
		}
		m.data = append(m.data, part...)
	}
	m.control = make([]byte, h.ControlLen)
	err := l.read(h.Control, m.control)
	if err == nil && to.name != nil {
		m.control, m.rights, err = l.rights(m.control)
	}
	return m, err
}
