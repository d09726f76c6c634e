package sockets

import (
	"errors"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/services"
)

// Supervisor answers for the sockets of all processes that were started through it.
type Supervisor struct {
	policy   Policy
	services *services.Chooser
}

// New makes a supervisor with a policy.
func New(policy Policy) *Supervisor {
	return &Supervisor{policy, services.NewChooser(policy.Services, policy.Address, policy.Kind != Pod)}
}

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

// listener is our end of one program's filter, its children's included.
type listener struct {
	fd int
	*Supervisor
	processes processes
	n         notification
	name      [unix.SizeofSockaddrAny]byte

	mu      sync.Mutex
	waiting map[int]bool // sockets on which a call is being carried out that takes its time
	users   sync.WaitGroup
}

// serve answers a listener's notifications until its last process is gone. Everything is carried out on this one goroutine,
// because each hand-over between threads would cost more than the call; what may block gets a goroutine of its own.
func (s *Supervisor) serve(fd int) {
	l := &listener{fd: fd, Supervisor: s, processes: newProcesses(), waiting: map[int]bool{}}
	defer l.close()
	// Waking the other side on the same processor halves the cost of a call. Linux 6.6.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSetFlags, flagSynchronousWake)
	watch := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(watch, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if watch[0].Revents&unix.POLLIN == 0 {
			return // hung up
		}
		l.n = notification{}
		if ioctl(fd, ioctlReceive, unsafe.Pointer(&l.n)) == nil { // else the process ended meanwhile
			l.handle()
		}
	}
}

// close ends the calls that still wait for a process that is gone, and gives everything back.
func (l *listener) close() {
	l.mu.Lock()
	for fd := range l.waiting {
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 1}) // a signal may start the call anew
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	l.mu.Unlock()
	l.users.Wait()
	l.processes.forgetAll()
	unix.Close(l.fd)
}

// aside runs a call that may block on a goroutine of its own, and closes the socket after it.
func (l *listener) aside(fd int, call func() (int, error)) {
	id := l.n.ID
	l.mu.Lock()
	l.waiting[fd] = true
	l.mu.Unlock()
	l.users.Add(1)
	go func() {
		defer l.users.Done()
		value, err := call()
		for errors.Is(err, unix.EINTR) { // by a signal of ours, not of the program's
			value, err = call()
		}
		l.mu.Lock()
		delete(l.waiting, fd)
		unix.Close(fd)
		l.mu.Unlock()
		l.reply(id, value, err)
	}()
}

// handle carries out one call, or lets it go on unchanged.
func (l *listener) handle() {
	switch l.n.Number {
	case unix.SYS_BIND:
		l.bind()
	case unix.SYS_CONNECT:
		l.connect()
	case unix.SYS_LISTEN:
		l.listen()
	case unix.SYS_SENDTO:
		l.sendto()
	case unix.SYS_SENDMSG:
		l.sendmsg()
	case unix.SYS_SENDMMSG:
		l.sendmmsg()
	default:
		l.pass()
	}
}

// pass lets the call go on as the program made it.
func (l *listener) pass() {
	a := answer{ID: l.n.ID, Flags: continueUnchanged}
	_ = ioctl(l.fd, ioctlSend, unsafe.Pointer(&a))
}

// done answers the call with a value or an error.
func (l *listener) done(value int, err error) { l.reply(l.n.ID, value, err) }

func (l *listener) reply(id uint64, value int, err error) {
	a := answer{ID: id, Value: int64(value)}
	if err != nil {
		errno := unix.EIO
		_ = errors.As(err, &errno)
		a.Value, a.Error = 0, -int32(errno)
	}
	_ = ioctl(l.fd, ioctlSend, unsafe.Pointer(&a))
}

// valid fails when the call is not under way any more: what was read by its thread's number may be another program's.
func (l *listener) valid() error { return ioctl(l.fd, ioctlIDValid, unsafe.Pointer(&l.n.ID)) }

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
