package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/sockets"
)

// exec runs a program in a container's file system and socket policy, with the client's descriptors, until it ends or the
// client goes away.
func (s *server) exec(client *conn, q Request, files []*os.File) {
	c := s.find(q.ID)
	if c == nil || !c.current().Running {
		closeAll(files)
		_ = client.send(Response{Error: fmt.Sprintf("container %s is not running", q.ID)})
		return
	}
	exit := make(chan ended, 1)
	p, main, err := s.enter(c, q, files, func(e ended) {
		c.mu.Lock()
		c.collected += e.cpu
		c.mu.Unlock()
		exit <- e
	})
	closeAll(files)
	if err != nil {
		answer := Response{Error: err.Error()}
		var failure *sockets.StartError
		if errors.As(err, &failure) {
			answer.Code = failure.Code
		}
		_ = client.send(answer)
		return
	}
	gone := make(chan struct{})
	if client.send(Response{Started: true}) == nil {
		go func() {
			defer close(gone)
			_, _ = client.reader.ReadByte()
		}()
	} else {
		close(gone)
	}
	codes := make(chan int, 1)
	go func() {
		if p.keeper != nil { // it may outlive the program, for what that has left
			if code, ok := p.keeper.code(); ok {
				codes <- code
				return
			}
		}
		codes <- exitCode((<-exit).status)
	}()
	var code int
	select {
	case code = <-codes:
	case <-gone:
		s.killGroup(p, main)
		code = <-codes
	}
	_ = client.send(Response{Exit: &code})
}

// killGroup kills the process group of a command.
func (s *server) killGroup(p *program, main identity) {
	if p.keeper != nil {
		p.keeper.order(sockets.KillGroup)
		return
	}
	s.reaper.whileThere(main.Pid, func() { _ = syscall.Kill(-main.Pid, syscall.SIGKILL) }) // it leads its group
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// enter starts a command in a container's namespaces.
func (s *server) enter(c *container, q Request, files []*os.File, done func(ended)) (*program, identity, error) {
	cmd := &exec.Cmd{SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: q.TTY, Pdeathsig: syscall.SIGKILL}}
	if err := connect(cmd, q, files); err != nil {
		return nil, identity{}, err
	}
	p := &program{container: c, cmd: cmd, argv: q.Argv}
	mounts, pids, err := c.hold()
	if err != nil {
		return nil, identity{}, err
	}
	defer closeAll([]*os.File{mounts, pids}) // closing nil is an error, and no more
	if pids != nil {
		p.join, cmd.SysProcAttr.Pdeathsig = pids, 0 // it dies with the first process there, see choosePids
	} else if p.keeper, err = newKept(c, false); err != nil {
		return nil, identity{}, err
	}
	switch {
	case mounts == nil:
	case c.user == nil:
		p.plan = &rootfs.Plan{Join: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), mounts.Fd())}
		if c.spec.Rootfs != nil {
			p.plan.Capabilities = c.spec.Rootfs.Capabilities
		}
	default:
		// A process of several threads cannot enter a user namespace: the program is started by a thread that is in the container's
		// mount namespace for that moment, in a user namespace like the container's.
		p.plan, p.mounts, p.user = &rootfs.Plan{Stay: true}, mounts, c.user
		c.user.show(cmd.SysProcAttr)
		if p.join != nil { // see mapUser
			cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings, p.mapLate = nil, nil, true
		}
	}
	main, err := s.beginInside(p, done)
	if err != nil {
		return nil, identity{}, err
	}
	if !c.current().Running { // it ended meanwhile, and its processes were killed without this one
		s.killGroup(p, main)
	}
	return p, main, nil
}

// hold keeps a running container's namespaces for a moment; those that it does not have are nil.
func (c *container) hold() (mounts, pids *os.File, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.status.Running {
		return nil, nil, fmt.Errorf("container %s is not running", c.spec.ID)
	}
	if c.namespace != nil {
		mounts, err = duplicate(c.namespace)
	}
	if err == nil && c.pids != nil {
		if pids, err = duplicate(c.pids); err != nil {
			mounts.Close()
		}
	}
	return mounts, pids, err
}

// connect gives a command the client's descriptors.
func connect(cmd *exec.Cmd, q Request, files []*os.File) error {
	for i, f := range files {
		if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
			return err
		}
		if q.TTY {
			cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, f
			break
		}
		if i >= len(q.Streams) {
			break
		}
		switch q.Streams[i] {
		case "stdin":
			cmd.Stdin = f
		case "stdout":
			cmd.Stdout = f
		case "stderr":
			cmd.Stderr = f
		}
	}
	return nil
}

// attach connects a client to a running container's streams until the container ends or the client goes away.
func (s *server) attach(client *conn, q Request, files []*os.File) {
	c := s.find(q.ID)
	if c == nil || !c.current().Running {
		closeAll(files)
		_ = client.send(Response{Error: fmt.Sprintf("container %s is not running", q.ID)})
		return
	}
	var mine []*os.File
	for i, f := range files {
		f = pollable(f)
		mine = append(mine, f)
		switch {
		case f == nil || i >= len(q.Streams):
		case q.Streams[i] == "stdin":
			go c.streams.feed(f)
		case q.Streams[i] == "stdout" && !c.streams.stdout.add(f), q.Streams[i] == "stderr" && !c.streams.stderr.add(f):
			f.Close()
		}
	}
	_ = client.send(Response{Started: true})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			var size Size
			if client.receive(&size) != nil {
				return
			}
			c.streams.resize(size)
		}
	}()
	select {
	case <-c.done:
		code := c.current().ExitCode
		_ = client.send(Response{Exit: &code})
	case <-gone:
	}
	for _, f := range mine {
		c.streams.stdout.remove(f)
		c.streams.stderr.remove(f)
		f.Close()
	}
}

// pollable is f in a form whose reads and writes end when it is closed.
func pollable(f *os.File) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	f.Close()
	if err != nil {
		return nil
	}
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "attached")
}
