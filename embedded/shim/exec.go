package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/sockets"
)

// exec runs a program in a container's file system and socket policy, with the client's descriptors, until it ends or the
// client goes away.
func (s *server) exec(client *conn, q Request, files []*os.File) {
	c := s.find(q.ID)
	if c == nil || !c.current().Running {
		_ = client.send(Response{Error: fmt.Sprintf("container %s is not running", q.ID)})
		return
	}
	exit := make(chan ended, 1)
	pid, err := s.enter(c, q, files, func(e ended) { exit <- e })
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		answer := Response{Error: err.Error()}
		var failure *sockets.StartError
		if errors.As(err, &failure) {
			answer.Code = failure.Code
		}
		_ = client.send(answer)
		return
	}
	if client.send(Response{Started: true}) != nil {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	gone := make(chan struct{})
	go func() {
		_, _ = client.reader.ReadByte()
		close(gone)
	}()
	var e ended
	select {
	case e = <-exit:
	case <-gone:
		_ = syscall.Kill(-pid, syscall.SIGKILL) // it leads its group, and is not reaped before exit tells
		e = <-exit
	}
	c.mu.Lock()
	c.collected += e.cpu
	c.mu.Unlock()
	code := exitCode(e.status)
	_ = client.send(Response{Exit: &code})
}

func (s *server) enter(c *container, q Request, files []*os.File, done func(ended)) (int, error) {
	cmd := &exec.Cmd{SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: q.TTY, Pdeathsig: syscall.SIGKILL}}
	for i, f := range files {
		if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
			return 0, err
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
	var plan *rootfs.Plan
	c.mu.Lock()
	if c.namespace != nil {
		plan = &rootfs.Plan{Join: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), c.namespace.Fd())}
		if c.spec.Rootfs != nil {
			plan.Capabilities = c.spec.Rootfs.Capabilities
		}
	}
	c.mu.Unlock()
	begin := s.begin
	if c.user != nil && plan != nil {
		begin = func(cmd *exec.Cmd, argv, _ []string, _ string, plan *rootfs.Plan, done func(ended)) (int, error) {
			return s.enterAs(c, cmd, argv, plan, done)
		}
	}
	pid, err := begin(cmd, q.Argv, c.spec.Env, c.spec.Dir, plan, done)
	if err != nil {
		return 0, err
	}
	s.processes.claim(pid, c.spec.ID)
	if !c.current().Running { // it ended meanwhile, and its group was killed without this one
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	return pid, nil
}

// attach connects a client to a running container's streams until the container ends or the client goes away.
func (s *server) attach(client *conn, q Request, files []*os.File) {
	c := s.find(q.ID)
	if c == nil || !c.current().Running {
		for _, f := range files {
			f.Close()
		}
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

// sample kills containers that use more memory than their limit. It looks once a second: there is no cgroup that would stop
// them at once.
func (s *server) sample() {
	for range time.Tick(time.Second) {
		for _, c := range s.limited() {
			total := uint64(0)
			for _, p := range s.processes.scan() {
				if p.owner == c.spec.ID {
					total += memory(p.pid, false)
				}
			}
			if total > c.limit && s.measure(c.spec.ID)[c.spec.ID].Memory > c.limit {
				c.mu.Lock()
				c.oom = true
				c.mu.Unlock()
				s.processes.kill(c.spec.ID, killLimit)
			}
		}
	}
}

func (s *server) limited() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*container
	for _, c := range s.containers {
		c.mu.Lock()
		if c.status.Running && c.limit > 0 {
			out = append(out, c)
		}
		c.mu.Unlock()
	}
	return out
}

// measure tells what the running containers use, or one of them.
func (s *server) measure(only string) map[string]Stats {
	live, memories, counts := map[string]time.Duration{}, map[string]uint64{}, map[string]uint64{}
	s.reaper.starting.RLock() // nothing is reaped between the two halves of a sum
	for _, p := range s.processes.scan() {
		if only != "" && p.owner != only {
			continue
		}
		live[p.owner] += p.cpu
		counts[p.owner]++
		memories[p.owner] += memory(p.pid, true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]Stats{}
	for id, c := range s.containers {
		c.mu.Lock()
		if c.status.Running && (only == "" || id == only) {
			c.reported = max(c.reported, uint64(c.collected+live[id]))
			out[id] = Stats{CPUNanos: c.reported, Memory: memories[id], Processes: counts[id]}
		}
		c.mu.Unlock()
	}
	s.reaper.starting.RUnlock()
	return out
}
