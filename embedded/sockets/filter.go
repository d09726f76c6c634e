package sockets

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/seccomp.h and linux/audit.h that golang.org/x/sys/unix does not name.
const (
	setModeFilter       = 1
	flagNewListener     = 1 << 3
	flagWaitKillable    = 1 << 5
	retAllow            = 0x7fff0000
	retErrno            = 0x00050000
	retNotify           = 0x7fc00000
	archX86             = 0xc000003e
	archARM             = 0xc00000b7
	x32Bit              = 0x40000000
	offNumber           = 0
	offArch             = 4
	offSendtoAddress    = 16 + 4*8
	continueUnchanged   = 1
	ioctlReceive        = 0xc0502100
	ioctlSend           = 0xc0182101
	ioctlIDValid        = 0x40082102
	ioctlSetFlags       = 0x40082104
	flagSynchronousWake = 1
)

// numbers are those of the system calls that the filter knows.
type numbers struct {
	arch, bind, connect, listen, sendto, sendmsg, sendmmsg, ioUringSetup uint32
}

func native() numbers {
	c := numbers{archX86, unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_LISTEN, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG, unix.SYS_IO_URING_SETUP}
	if runtime.GOARCH == "arm64" {
		c.arch = archARM
	}
	return c
}

// program is the filter: bind, connect, listen, sendmsg and sendmmsg are handed over, sendto when it carries an address. io_uring, by
// which a program could connect unseen, is absent (ENOSYS), as in many containers; programs do without.
// Calls of another architecture, which these numbers do not fit, pass.
func (c numbers) program() []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		{Code: load, K: offArch},
		{Code: equal, K: c.arch, Jt: 0, Jf: 13},
		{Code: load, K: offNumber},
		{Code: least, K: x32Bit, Jt: 11, Jf: 0},
		{Code: equal, K: c.bind, Jt: 11, Jf: 0},
		{Code: equal, K: c.connect, Jt: 10, Jf: 0},
		{Code: equal, K: c.listen, Jt: 9, Jf: 0},
		{Code: equal, K: c.sendmsg, Jt: 8, Jf: 0},
		{Code: equal, K: c.sendmmsg, Jt: 7, Jf: 0},
		{Code: equal, K: c.ioUringSetup, Jt: 7, Jf: 0},
		{Code: equal, K: c.sendto, Jt: 0, Jf: 4},
		{Code: load, K: offSendtoAddress},
		{Code: equal, K: 0, Jt: 0, Jf: 3},
		{Code: load, K: offSendtoAddress + 4},
		{Code: equal, K: 0, Jt: 0, Jf: 1},
		{Code: ret, K: retAllow},
		{Code: ret, K: retNotify},
		{Code: ret, K: retErrno | uint32(unix.ENOSYS)},
	}
}

// install puts the filter on the calling thread, which must be locked and about to exec, and returns its listener.
func install() (int, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("no_new_privs: %w", err)
	}
	filter := native().program()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// WAIT_KILLABLE keeps a signal (Go preempts its threads with one) from repeating a call that is being carried out. Linux 5.19.
	for _, flags := range []uintptr{flagNewListener | flagWaitKillable, flagNewListener} {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, flags, uintptr(unsafe.Pointer(&prog)))
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINVAL:
		case unix.EBUSY:
			return -1, errors.New("seccomp: this process is already under a socket filter, and there can be only one")
		default:
			return -1, fmt.Errorf("seccomp: %w", errno)
		}
	}
	return -1, errors.New("seccomp: this kernel has no user notification (Linux 5.9 or newer is needed)")
}
