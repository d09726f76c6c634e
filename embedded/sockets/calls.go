package sockets

import (
	"bytes"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const maxMessage = 1 << 20 // bytes of one addressed send; a datagram has at most 64 KiB

func (c call) bind() {
	a, ok := c.address(c.n.Args[1], c.n.Args[2])
	if !ok {
		c.pass()
		return
	}
	if _, changed := c.policy.bind(a, false); !changed {
		c.pass()
		return
	}
	fd, err := c.socket(c.n.Thread, int(int32(c.n.Args[0])))
	if err != nil {
		c.done(0, err)
		return
	}
	defer unix.Close(fd)
	six := option(fd, unix.SOL_SOCKET, unix.SO_DOMAIN) == unix.AF_INET6
	only6 := six && option(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) == 1
	target, _ := c.policy.bind(a, only6)
	c.done(0, unix.Bind(fd, sockaddr(target, six)))
}

func (c call) connect() {
	a, ok := c.address(c.n.Args[1], c.n.Args[2])
	if !ok {
		c.pass()
		return
	}
	target, changed := c.policy.connect(a)
	source := c.policy.source(target)
	if !changed && !source.IsValid() {
		c.pass()
		return
	}
	fd, err := c.socket(c.n.Thread, int(int32(c.n.Args[0])))
	if err != nil {
		c.done(0, err)
		return
	}
	six := option(fd, unix.SOL_SOCKET, unix.SO_DOMAIN) == unix.AF_INET6
	if source.IsValid() {
		bindSource(fd, source, six)
	}
	finish := func() {
		err := unix.Connect(fd, sockaddr(target, six))
		unix.Close(fd)
		c.done(0, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK != 0 {
		finish()
		return
	}
	go finish() // may block as long as the listener's queue is full
}

// bindSource gives an unbound socket the pod's address, its port left to the kernel at connect.
func bindSource(fd int, source netip.Addr, six bool) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return
	}
	switch n := name.(type) {
	case *unix.SockaddrInet4:
		if n.Port != 0 {
			return
		}
	case *unix.SockaddrInet6:
		if n.Port != 0 || option(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) == 1 {
			return
		}
	default:
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	_ = unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0), six))
}

func option(fd, level, name int) int {
	value, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		return -1
	}
	return value
}

func (c call) sendto() {
	target, ok := c.redirected(c.n.Args[4], c.n.Args[5])
	if !ok || c.n.Args[2] > maxMessage {
		c.pass()
		return
	}
	data, err := c.read(c.n.Args[1], int(c.n.Args[2]))
	if err != nil {
		c.done(0, err)
		return
	}
	c.send(target, data, int(c.n.Args[3]), c.done)
}

// redirected is where an addressed send goes instead; false when it stays as it is.
func (c call) redirected(pointer, length uint64) (netip.AddrPort, bool) {
	a, ok := c.address(pointer, length)
	if !ok {
		return a, false
	}
	return c.policy.connect(a)
}

// send carries out one addressed send and hands its result to done.
func (c call) send(target netip.AddrPort, data []byte, flags int, done func(int, error)) {
	fd, err := c.socket(c.n.Thread, int(int32(c.n.Args[0])))
	if err != nil {
		done(0, err)
		return
	}
	defer unix.Close(fd)
	six := option(fd, unix.SOL_SOCKET, unix.SO_DOMAIN) == unix.AF_INET6
	done(len(data), unix.Sendto(fd, data, flags|unix.MSG_NOSIGNAL, sockaddr(target, six)))
}

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

func (c call) sendmsg() {
	h, err := c.header(c.n.Args[1])
	if err != nil {
		c.pass() // the kernel gives the program the error it deserves
		return
	}
	target, ok := c.redirected(h.Name, uint64(h.NameLen))
	if !ok {
		c.pass()
		return
	}
	data, err := c.gather(h)
	if err != nil {
		c.done(0, err)
		return
	}
	c.send(target, data, int(c.n.Args[2]), c.done)
}

func (c call) sendmmsg() {
	count := int(min(c.n.Args[2], 1024))
	targets := make([]netip.AddrPort, count)
	headers := make([]header, count)
	for i := range count {
		h, err := c.header(c.n.Args[1] + uint64(i*manySize))
		if err != nil {
			c.pass()
			return
		}
		target, ok := c.redirected(h.Name, uint64(h.NameLen))
		if !ok {
			c.pass() // connected sockets, and messages to the outside; nobody mixes them
			return
		}
		headers[i], targets[i] = h, target
	}
	sent := 0
	var failure error
	for i := range count {
		data, err := c.gather(headers[i])
		if err == nil {
			c.send(targets[i], data, int(c.n.Args[3]), func(_ int, e error) { err = e })
		}
		if err == nil {
			err = c.writeLength(c.n.Args[1]+uint64(i*manySize+headerSize), uint32(len(data)))
		}
		if err != nil {
			failure = err
			break
		}
		sent++
	}
	if sent > 0 {
		failure = nil
	}
	c.done(sent, failure)
}

func (c call) header(pointer uint64) (header, error) {
	raw, err := c.read(pointer, headerSize)
	if err != nil {
		return header{}, err
	}
	return *(*header)(unsafe.Pointer(&raw[0])), nil
}

// gather reads the data of a message.
func (c call) gather(h header) ([]byte, error) {
	if h.VectorsLen > 1024 {
		return nil, unix.EMSGSIZE
	}
	raw, err := c.read(h.Vectors, int(h.VectorsLen)*16)
	if err != nil {
		return nil, err
	}
	var data []byte
	for i := range int(h.VectorsLen) {
		vector := *(*[2]uint64)(unsafe.Pointer(&raw[i*16]))
		if uint64(len(data))+vector[1] > maxMessage {
			return nil, unix.EMSGSIZE
		}
		part, err := c.read(vector[0], int(vector[1]))
		if err != nil {
			return nil, err
		}
		data = append(data, part...)
	}
	return data, nil
}

func (c call) writeLength(pointer uint64, length uint32) error {
	raw := (*[4]byte)(unsafe.Pointer(&length))
	local := []unix.Iovec{{Base: &raw[0], Len: 4}}
	remote := []unix.RemoteIovec{{Base: uintptr(pointer), Len: 4}}
	_, err := processVMWritev(int(c.n.Thread), local, remote)
	return err
}

func processVMWritev(pid int, local []unix.Iovec, remote []unix.RemoteIovec) (int, error) {
	n, err := unix.ProcessVMWritev(pid, local, remote, 0)
	return n, err
}

// group is the process id of a thread.
func group(thread uint32) int {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(int(thread)) + "/status")
	if err == nil {
		if _, rest, ok := bytes.Cut(status, []byte("\nTgid:\t")); ok {
			line, _, _ := bytes.Cut(rest, []byte("\n"))
			if id, err := strconv.Atoi(string(line)); err == nil {
				return id
			}
		}
	}
	return int(thread)
}
