package sockets

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const maxProcesses = 128 // whose handles are kept

// processes keeps a handle on each process that calls, because opening one costs more than the call.
type processes struct {
	threads map[uint32]int // thread → its process
	handles map[int]int    // process → pidfd
	last    int            // the process that called last
}

func newProcesses() processes {
	return processes{threads: map[uint32]int{}, handles: map[int]int{}}
}

// socket duplicates a thread's descriptor into this process.
func (p *processes) socket(thread uint32, number int) (int, error) {
	for {
		group := p.group(thread)
		handle, cached := p.handles[group]
		if !cached {
			var err error
			if handle, err = unix.PidfdOpen(group, 0); err != nil {
				return -1, err
			}
			if len(p.handles) >= maxProcesses {
				p.forgetAll()
			}
			p.handles[group] = handle
		}
		fd, err := unix.PidfdGetfd(handle, number, 0)
		if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) && !cached {
			return ofThread(thread, number)
		}
		if !errors.Is(err, unix.ESRCH) {
			return fd, err
		}
		unix.Close(handle) // of an earlier process of that number
		delete(p.handles, group)
	}
}

// ofThread duplicates a descriptor by way of the thread itself. A process whose first thread has ended (pthread_exit in main) has
// no descriptors any more for those who ask for the process. Linux 6.9.
func ofThread(thread uint32, number int) (int, error) {
	const single = unix.O_EXCL // PIDFD_THREAD
	handle, err := unix.PidfdOpen(int(thread), single)
	if err != nil {
		return -1, unix.EBADF
	}
	defer unix.Close(handle)
	return unix.PidfdGetfd(handle, number, 0)
}

// group is the process of a thread. The kernel confirms it (signal 0) each time, as numbers are used again.
func (p *processes) group(thread uint32) int {
	if known, ok := p.threads[thread]; ok && unix.Tgkill(known, int(thread), 0) == nil {
		p.last = known
		return known
	}
	group := int(thread)
	switch {
	case p.last > 0 && unix.Tgkill(p.last, int(thread), 0) == nil:
		group = p.last
	case unix.Tgkill(group, int(thread), 0) == nil: // its first thread
	default:
		group = statusGroup(thread)
	}
	if len(p.threads) >= 32*maxProcesses {
		clear(p.threads)
	}
	p.threads[thread], p.last = group, group
	return group
}

// statusGroup reads the process of a thread from /proc.
func statusGroup(thread uint32) int {
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

func (p *processes) forgetAll() {
	for _, fd := range p.handles {
		unix.Close(fd)
	}
	clear(p.handles)
	clear(p.threads)
}

// socket duplicates the program's socket into this process, and tells about it. The caller closes it.
func (l *listener) socket() (socket, error) {
	fd, err := l.processes.socket(l.n.Thread, int(int32(l.n.Args[0])))
	if err != nil {
		return socket{}, err
	}
	s := socket{fd: fd, family: option(fd, unix.SOL_SOCKET, unix.SO_DOMAIN), kind: option(fd, unix.SOL_SOCKET, unix.SO_TYPE)}
	if err := l.valid(); err != nil {
		s.close()
		return socket{}, err
	}
	return s, nil
}

// read copies memory of the program into the buffer.
func (l *listener) read(address uint64, buffer []byte) error {
	if len(buffer) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &buffer[0], Len: uint64(len(buffer))}}
	remote := []unix.RemoteIovec{{Base: uintptr(address), Len: len(buffer)}}
	n, err := unix.ProcessVMReadv(int(l.n.Thread), local, remote, 0)
	if err == nil && n != len(buffer) {
		err = unix.EFAULT
	}
	return err
}

// write copies the buffer into memory of the program.
func (l *listener) write(address uint64, buffer []byte) error {
	local := []unix.Iovec{{Base: &buffer[0], Len: uint64(len(buffer))}}
	remote := []unix.RemoteIovec{{Base: uintptr(address), Len: len(buffer)}}
	_, err := unix.ProcessVMWritev(int(l.n.Thread), local, remote, 0)
	return err
}

// sockaddr reads the socket address that the program passes; nil when it passes none. What cannot be read must fail: the kernel
// might be able to, and would carry out the call as it is.
func (l *listener) sockaddr(pointer, length uint64) ([]byte, error) {
	size := int(int32(length)) // as the kernel takes it
	if pointer == 0 || size <= 0 {
		return nil, nil
	}
	raw := l.name[:min(size, len(l.name))]
	return raw, l.read(pointer, raw)
}
