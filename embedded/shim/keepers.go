package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/sockets"
)

// kept is a program that has a keeper, seen from here.
type kept struct {
	identity // the keeper
	main     bool
	control  *os.File
	told     chan sockets.Kept // what it says: that the program runs, then its exit code; closed when it says no more
	theirs   *os.File
	c        *container
	gone     bool // guarded by c.mu
}

// newKept makes a program's keeper, to be started with the program.
func newKept(c *container, main bool) (*kept, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	_ = unix.SetNonblock(pair[0], true) // so that a read ends with the socket
	return &kept{
		main: main, control: os.NewFile(uintptr(pair[0]), "keeper"), theirs: os.NewFile(uintptr(pair[1]), "control"), c: c,
		told: make(chan sockets.Kept, 2),
	}, nil
}

// keep puts the keeper before the program that is about to be started: what was meant for its process is for the keeper's child.
func (k *kept) keep(cmd *exec.Cmd, spec *sockets.Spec) {
	spec.Keep = &sockets.Keep{
		Attr: cmd.SysProcAttr, Control: 3 + len(cmd.ExtraFiles), Env: append(marks(), ContainerVariable+"="+k.c.spec.ID),
		Last: k.main, First: k.main && k.c.spec.Pids != "node",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.ExtraFiles = append(cmd.ExtraFiles, k.theirs)
}

// begun is called when the keeper was started, or could not be; it returns the program's main process.
func (k *kept) begun(keeper identity, err error) (identity, error) {
	k.theirs.Close()
	var told sockets.Kept
	if err == nil {
		go k.listen()
		told, err = k.hear(time.After(10 * time.Second))
	}
	if err != nil {
		k.control.Close()
		return identity{}, err
	}
	k.identity = keeper
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	if k.c.keepers == nil {
		k.c.keepers = map[*kept]bool{}
	}
	if !k.gone {
		k.c.keepers[k] = true
	}
	return identity{told.Pid, told.Started}, nil
}

// listen hears the keeper out. It may have ended by then: what it has said is still there to be read.
func (k *kept) listen() {
	defer k.control.Close()
	defer close(k.told)
	for said := json.NewDecoder(k.control); ; {
		var told sockets.Kept
		if said.Decode(&told) != nil {
			return
		}
		k.told <- told
	}
}

func (k *kept) hear(late <-chan time.Time) (sockets.Kept, error) {
	select {
	case told, more := <-k.told:
		if more {
			return told, nil
		}
		return told, errors.New("keeper: it has ended without a word")
	case <-late:
		return sockets.Kept{}, errors.New("keeper: it does not tell that the program runs")
	}
}

// code waits for the program's exit code; false when the keeper has ended without telling it.
func (k *kept) code() (int, bool) {
	told, err := k.hear(nil)
	if err != nil || told.Code == nil {
		return 0, false
	}
	return *told.Code, true
}

// endsWith forgets the keeper when it has ended.
func (k *kept) endsWith(done func(ended)) func(ended) {
	return func(e ended) {
		k.c.mu.Lock()
		k.gone = true
		delete(k.c.keepers, k)
		k.c.mu.Unlock()
		done(e)
	}
}

// order sends a signal to the program.
func (k *kept) order(sig byte) { _, _ = k.control.Write([]byte{sig}) }

// end lets the keeper kill everything that is its program's, and end.
func (k *kept) end() {
	if raw, err := k.control.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
	}
}
