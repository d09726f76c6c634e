package sockets

import (
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification is struct seccomp_notif of linux/seccomp.h.
type notification struct {
	ID     uint64
	Thread uint32
	Flags  uint32
	Number int32
	Arch   uint32
	IP     uint64
	Args   [6]uint64
}

// answer is struct seccomp_notif_resp of linux/seccomp.h.
type answer struct {
	ID    uint64
	Value int64
	Error int32
	Flags uint32
}

// Supervisor answers for the sockets of all processes that were started through it.
type Supervisor struct {
	policy Policy

	mu      sync.Mutex
	handles map[uint32]int // thread id → pidfd of its process
}

// New makes a supervisor with a policy.
func New(policy Policy) *Supervisor {
	return &Supervisor{policy: policy, handles: map[uint32]int{}}
}

// serve answers a listener's notifications until its last process is gone.
func (s *Supervisor) serve(listener int) {
	defer unix.Close(listener)
	// Waking the other side on the same processor halves the cost of a call. Linux 6.6.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), ioctlSetFlags, flagSynchronousWake)
	watch := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(watch, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if watch[0].Revents&unix.POLLIN == 0 {
			if watch[0].Revents != 0 {
				return
			}
			continue
		}
		var n notification
		if err := ioctl(listener, ioctlReceive, unsafe.Pointer(&n)); err != nil {
			continue // the call was interrupted or its process ended
		}
		s.handle(call{Supervisor: s, listener: listener, n: n})
	}
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// handle carries out one call, or lets it go on unchanged.
func (s *Supervisor) handle(c call) {
	switch c.n.Number {
	case unix.SYS_BIND:
		c.bind()
	case unix.SYS_CONNECT:
		c.connect()
	case unix.SYS_SENDTO:
		c.sendto()
	case unix.SYS_SENDMSG:
		c.sendmsg()
	case unix.SYS_SENDMMSG:
		c.sendmmsg()
	default:
		c.pass()
	}
}

// pidfd is a handle on the process of a thread, from the cache when it is there.
func (s *Supervisor) pidfd(thread uint32) (fd int, cached bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fd, ok := s.handles[thread]; ok {
		return fd, true, nil
	}
	fd, err = unix.PidfdOpen(group(thread), 0)
	if err != nil {
		return -1, false, err
	}
	if len(s.handles) >= 256 {
		s.forgetAll()
	}
	s.handles[thread] = fd
	return fd, false, nil
}

// forget drops a cached handle whose process is gone.
func (s *Supervisor) forget(thread uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fd, ok := s.handles[thread]; ok {
		unix.Close(fd)
		delete(s.handles, thread)
	}
}

func (s *Supervisor) forgetAll() {
	for thread, fd := range s.handles {
		unix.Close(fd)
		delete(s.handles, thread)
	}
}

// socket duplicates the program's socket into this process.
func (s *Supervisor) socket(thread uint32, number int) (int, error) {
	for {
		handle, cached, err := s.pidfd(thread)
		if err != nil {
			return -1, err
		}
		fd, err := unix.PidfdGetfd(handle, number, 0)
		if err == nil || !cached || errors.Is(err, unix.EBADF) {
			return fd, err
		}
		s.forget(thread) // the thread id belongs to another process by now
	}
}

// call is one system call under way.
type call struct {
	*Supervisor
	listener int
	n        notification
}

// pass lets the call go on as the program made it.
func (c call) pass() { c.reply(answer{Flags: continueUnchanged}) }

// done answers the call with a value or an error.
func (c call) done(value int, err error) {
	var errno syscall.Errno
	switch {
	case err == nil:
		c.reply(answer{Value: int64(value)})
	case errors.As(err, &errno):
		c.reply(answer{Error: -int32(errno)})
	default:
		c.reply(answer{Error: -int32(unix.EIO)})
	}
}

func (c call) reply(a answer) {
	a.ID = c.n.ID
	_ = ioctl(c.listener, ioctlSend, unsafe.Pointer(&a))
}

// read copies memory of the program; an error also when the call is not under way any more, and so the memory another's.
func (c call) read(address uint64, length int) ([]byte, error) {
	if length == 0 {
		return nil, nil
	}
	buffer := make([]byte, length)
	local := []unix.Iovec{{Base: &buffer[0], Len: uint64(length)}}
	remote := []unix.RemoteIovec{{Base: uintptr(address), Len: length}}
	if n, err := unix.ProcessVMReadv(int(c.n.Thread), local, remote, 0); err != nil {
		return nil, err
	} else if n != length {
		return nil, unix.EFAULT
	}
	return buffer, ioctl(c.listener, ioctlIDValid, unsafe.Pointer(&c.n.ID))
}

// address reads the socket address that the program passes.
func (c call) address(pointer, length uint64) (netip.AddrPort, bool) {
	if pointer == 0 || length < 8 {
		return netip.AddrPort{}, false
	}
	raw, err := c.read(pointer, int(min(length, unix.SizeofSockaddrAny)))
	if err != nil {
		return netip.AddrPort{}, false
	}
	return parse(raw)
}
