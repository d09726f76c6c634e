package shim

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/sockets"
)

// identity is one process and no other: numbers are given to other processes later, and start times tell them apart. Both
// count from the start of the kernel, so that identities are kept with its boot id.
type identity struct {
	Pid     int    `json:"pid"`
	Started uint64 `json:"started"` // ticks; field 22 of /proc/PID/stat
}

// identify is the process that has a number now; not ok when there is none.
func identify(pid int) (identity, bool) {
	started, err := sockets.StartTime(pid)
	return identity{pid, started}, err == nil && pid > 0
}

// exists tells whether the process is there, be it as a zombie.
func (i identity) exists() bool {
	now, ok := identify(i.Pid)
	return ok && now == i
}

// open is a pidfd of the process. The number is looked at after the pidfd is there: what has the start time that was recorded
// earlier had the number all the while.
func (i identity) open() (int, error) {
	if i.Started == 0 {
		return -1, unix.ESRCH
	}
	fd, err := unix.PidfdOpen(i.Pid, 0)
	if err != nil {
		return -1, err
	}
	if !i.exists() {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// signal sends a signal to the process, and to no other one. A sandbox without pidfds (Linux before 5.3) leaves the moment
// between the look and the signal.
func (i identity) signal(sig syscall.Signal) error {
	fd, err := i.open()
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		if !i.exists() {
			return unix.ESRCH
		}
		return unix.Kill(i.Pid, sig)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// gone waits until the process has ended, zombies included; false when it has not within the time.
func (i identity) gone(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		p, ok := readProcess(i.Pid)
		if !ok || p.Started != i.Started || p.zombie {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// self is this process.
func self() identity {
	i, _ := identify(os.Getpid())
	return i
}
