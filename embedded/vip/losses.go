package vip

import (
	"errors"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher tells of connections that fail while nobody reads from them: a copy that waits for one side does not look at the other.
type watcher struct {
	once  sync.Once
	epoll int

	mu    sync.Mutex
	last  int32
	calls map[int32]func()
}

// losses watches all connections of this process.
var losses = watcher{epoll: -1, calls: map[int32]func(){}}

// watch calls lost when conn fails, with what tells the reason: nil when whoever reads or writes has seen it already, and after it
// was told nobody else sees it. What watch returns ends that.
func (w *watcher) watch(conn *net.TCPConn, lost func(why func() error)) (end func()) {
	w.once.Do(w.start)
	raw, err := conn.SyscallConn()
	if err != nil || w.epoll < 0 {
		return func() {}
	}
	why := func() (reason error) {
		_ = raw.Control(func(fd uintptr) {
			if code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
				reason = unix.Errno(code)
			}
		})
		return reason
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.last++; w.calls[w.last] != nil; w.last++ {
	}
	id := w.last
	w.calls[id] = func() { lost(why) }
	_ = raw.Control(func(fd uintptr) { // failures are told of always; closing ends it
		_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLET, Fd: id})
	})
	return func() {
		w.mu.Lock()
		delete(w.calls, id)
		w.mu.Unlock()
	}
}

func (w *watcher) start() {
	var err error
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		go w.run()
	}
}

func (w *watcher) run() {
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for _, e := range events[:max(n, 0)] {
			w.mu.Lock()
			call := w.calls[e.Fd]
			w.mu.Unlock()
			if call != nil && e.Events&unix.EPOLLERR != 0 {
				go call()
			}
		}
	}
}
