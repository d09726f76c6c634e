package sockets

import (
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
	retNotify           = 0x7fc00000
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

func auditArch() uint32 {
	if runtime.GOARCH == "arm64" {
		return 0xc00000b7
	}
	return 0xc000003e
}

// program is the filter: bind, connect, sendmsg and sendmmsg are handed over, sendto when it carries an address.
// Calls of another architecture, which these numbers do not fit, pass.
func program() []unix.SockFilter {
	const load, equal, greater, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	return []unix.SockFilter{
		{Code: load, K: offArch},
		{Code: equal, K: auditArch(), Jt: 0, Jf: 11},
		{Code: load, K: offNumber},
		{Code: greater, K: x32Bit, Jt: 9, Jf: 0},
		{Code: equal, K: unix.SYS_BIND, Jt: 9, Jf: 0},
		{Code: equal, K: unix.SYS_CONNECT, Jt: 8, Jf: 0},
		{Code: equal, K: unix.SYS_SENDMSG, Jt: 7, Jf: 0},
		{Code: equal, K: unix.SYS_SENDMMSG, Jt: 6, Jf: 0},
		{Code: equal, K: unix.SYS_SENDTO, Jt: 0, Jf: 4},
		{Code: load, K: offSendtoAddress},
		{Code: equal, K: 0, Jt: 0, Jf: 3},
		{Code: load, K: offSendtoAddress + 4},
		{Code: equal, K: 0, Jt: 0, Jf: 1},
		{Code: ret, K: retAllow},
		{Code: ret, K: retNotify},
	}
}

// install puts the filter on the calling thread, which must be locked and about to exec, and returns its listener.
func install() (int, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("no_new_privs: %w", err)
	}
	filter := program()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// WAIT_KILLABLE keeps a signal (Go preempts its threads with one) from repeating a call that is being carried out. Linux 5.19.
	for _, flags := range []uintptr{flagNewListener | flagWaitKillable, flagNewListener} {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, flags, uintptr(unsafe.Pointer(&prog)))
		if errno == 0 {
			return int(fd), nil
		}
		if errno != unix.EINVAL {
			return -1, fmt.Errorf("seccomp: %w", errno)
		}
	}
	return -1, fmt.Errorf("seccomp: this kernel has no user notification (Linux 5.0 or newer)")
}
