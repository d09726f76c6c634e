package shim

import (
	"encoding/binary"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ended is how a child of this process ended.
type ended struct {
	pid    int
	status syscall.WaitStatus
	cpu    time.Duration // its own and that of the children it has waited for
}

// reaper waits for all children of this process: those it started, and orphans of theirs.
type reaper struct {
	starting sync.RWMutex // held shared while a child is started, so that it cannot be reaped before it is known

	mu      sync.Mutex
	waiting map[int]func(ended)
	orphan  func(i identity, e ended) // called for a child that nobody waits for
}

func newReaper(orphan func(i identity, e ended)) *reaper {
	r := &reaper{waiting: map[int]func(ended){}, orphan: orphan}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	go func() {
		for range signals {
			r.reap()
		}
	}()
	return r
}

// start calls begin, which starts a child, and done when that child has ended.
func (r *reaper) start(begin func() (pid int, err error), done func(ended)) (int, error) {
	r.starting.RLock()
	defer r.starting.RUnlock()
	pid, err := begin()
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.waiting[pid] = done
	r.mu.Unlock()
	return pid, nil
}

// whileThere calls do if a child that was started has not been waited for yet, and keeps it from being so meanwhile.
func (r *reaper) whileThere(pid int, do func()) {
	r.starting.RLock()
	defer r.starting.RUnlock()
	r.mu.Lock()
	there := r.waiting[pid] != nil
	r.mu.Unlock()
	if there {
		do()
	}
}

// reap collects what has ended. A zombie is looked at before it is collected: until then its number is its own.
func (r *reaper) reap() {
	r.starting.Lock()
	defer r.starting.Unlock()
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		pid := siginfoPid(&info)
		if err != nil || pid == 0 {
			return
		}
		i, _ := identify(pid)
		var status unix.WaitStatus
		var usage unix.Rusage
		if _, err := unix.Wait4(pid, &status, 0, &usage); err != nil {
			return
		}
		e := ended{pid, syscall.WaitStatus(status), time.Duration(usage.Utime.Nano() + usage.Stime.Nano())}
		r.mu.Lock()
		done := r.waiting[pid]
		delete(r.waiting, pid)
		r.mu.Unlock()
		if done != nil {
			done(e)
		} else {
			r.orphan(i, e)
		}
	}
}

// siginfoPid reads si_pid, which follows signo, errno and code (and padding) in siginfo_t of 64-bit Linux.
func siginfoPid(info *unix.Siginfo) int {
	raw := (*[24]byte)(unsafe.Pointer(info))
	return int(int32(binary.NativeEndian.Uint32(raw[16:])))
}
