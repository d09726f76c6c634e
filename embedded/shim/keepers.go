package shim

import (
	"bufio"
	"encoding/json"
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
	told     *bufio.Reader
	theirs   *os.File
	c        *container
}

// newKept makes a program's keeper, to be started with the program.
func newKept(c *container, main bool) (*kept, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	_ = unix.SetNonblock(pair[0], true) // so that a read ends with the socket
	k := &kept{main: main, control: os.NewFile(uintptr(pair[0]), "keeper"), theirs: os.NewFile(uintptr(pair[1]), "control"), c: c}
	k.told = bufio.NewReader(k.control)
	return k, nil
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
		_ = k.control.SetReadDeadline(time.Now().Add(10 * time.Second))
		told, err = k.hear()
		_ = k.control.SetReadDeadline(time.Time{})
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
	k.c.keepers[k] = true
	return identity{told.Pid, told.Started}, nil
}

func (k *kept) hear() (told sockets.Kept, err error) {
	line, err := k.told.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &told)
	}
	if err != nil {
		err = fmt.Errorf("keeper: %w", err)
	}
	return told, err
}

// code waits for the program's exit code; false when the keeper has ended without telling it.
func (k *kept) code() (int, bool) {
	told, err := k.hear()
	if err != nil || told.Code == nil {
		return 0, false
	}
	return *told.Code, true
}

// endsWith forgets the keeper when it has ended.
func (k *kept) endsWith(done func(ended)) func(ended) {
	return func(e ended) {
		k.c.mu.Lock()
		delete(k.c.keepers, k)
		k.c.mu.Unlock()
		k.control.Close()
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
