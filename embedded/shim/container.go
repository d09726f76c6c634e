package shim

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/sockets"
)

// container is a container that was started.
type container struct {
	spec      Container
	streams   *streams
	namespace *os.File      // its mount namespace, for exec; nil without one
	user      *User         // who its processes are in its user namespace; nil without one
	done      chan struct{} // closed when it has ended and nothing of it is left

	mu        sync.Mutex // guards what follows
	status    Status
	oom       bool
	limit     uint64        // bytes
	collected time.Duration // CPU time of its processes that were waited for by the shim
	reported  uint64        // nanoseconds, the highest CPU time that was told
}

func (c *container) current() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// startContainer starts a container's process. A failure is a status, too: it is kept as the container's end.
func (s *server) startContainer(spec *Container) error {
	if len(spec.Argv) == 0 {
		return errors.New("no command specified")
	}
	c := &container{spec: *spec, done: make(chan struct{}), limit: spec.MemoryLimit}
	s.mu.Lock()
	if s.containers[spec.ID] != nil || s.ending {
		s.mu.Unlock()
		return fmt.Errorf("container %s was started before, or its pod is ending", spec.ID)
	}
	s.containers[spec.ID] = c
	s.mu.Unlock()
	if err := s.launch(c); err != nil {
		s.failed(c, err)
		return err
	}
	return nil
}

// failed records that a container could not be started, as containerd does: exit code 128, reason StartError.
func (s *server) failed(c *container, err error) {
	now := time.Now().UnixNano()
	c.mu.Lock()
	c.status = Status{ID: c.spec.ID, StartedAt: now, FinishedAt: now, ExitCode: 128, Reason: StartError, Message: err.Error()}
	c.mu.Unlock()
	close(c.done)
	s.save(c)
}

func (s *server) launch(c *container) error {
	streams, err := openStreams(&c.spec)
	if err != nil {
		return fmt.Errorf("standard streams: %w", err)
	}
	c.streams = streams
	cmd := &exec.Cmd{Stdin: streams.child[0], Stdout: streams.child[1], Stderr: streams.child[2]}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: c.spec.TTY, Pdeathsig: syscall.SIGKILL}
	if s.state.Mounts && c.spec.Rootfs != nil {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
		if err := s.mountTmpfs(c.spec.Tmpfs); err != nil {
			streams.release()
			streams.close()
			return err
		}
	}
	exit := make(chan ended, 1)
	pid, err := s.beginAs(c, cmd, func(e ended) { exit <- e })
	streams.release()
	if err != nil {
		streams.close()
		return err
	}
	s.processes.claim(pid, c.spec.ID)
	c.mu.Lock()
	c.status = Status{ID: c.spec.ID, Running: true, Pid: pid, StartedAt: time.Now().UnixNano()}
	if cmd.SysProcAttr.Cloneflags != 0 {
		c.namespace, _ = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		c.status.MountNS = mountNS(pid)
	}
	c.mu.Unlock()
	s.save(c)
	go func() { s.finish(c, <-exit) }()
	return nil
}

// begin starts a program under the pod's socket policy. Where the kernel or the sandbox around us has no socket filter, the
// program runs without one.
func (s *server) begin(cmd *exec.Cmd, argv, env []string, dir string, plan *rootfs.Plan, done func(ended)) (int, error) {
	spec := sockets.Spec{Argv: argv, Env: env, Dir: dir, Plain: s.plain.Load()}
	if plan != nil {
		spec.Rootfs = plan.Encode()
	}
	start := func() (int, error) {
		again := *cmd
		if err := s.sockets.Start(&again, spec); err != nil {
			return 0, err
		}
		pid := again.Process.Pid
		return pid, again.Process.Release()
	}
	pid, err := s.reaper.start(start, done)
	var failure *sockets.StartError
	if errors.As(err, &failure) && failure.Code == 128 && !spec.Plain && s.noFilter() {
		spec.Plain = true
		pid, err = s.reaper.start(start, done)
	}
	return pid, err
}

// noFilter finds out, after a failure, whether the socket filter does not work here at all.
func (s *server) noFilter() bool {
	s.reaper.starting.RLock()
	err := sockets.Supported()
	s.reaper.starting.RUnlock()
	if err != nil && !s.plain.Swap(true) {
		log.Print("containers run without the socket filter: ", err)
	}
	return err != nil
}

// killLimit bounds the killing of a group; a process in an uninterruptible wait can resist it.
const killLimit = 10 * time.Second

// finish cleans up after a container's main process: like a container's, its other processes do not outlive it.
func (s *server) finish(c *container, e ended) {
	now := time.Now().UnixNano()
	if !s.processes.kill(c.spec.ID, killLimit) {
		log.Printf("processes of container %s cannot be killed", c.spec.ID)
	}
	s.reaper.reap()
	c.streams.close()
	c.mu.Lock()
	c.collected += e.cpu
	c.status.Running, c.status.FinishedAt, c.status.ExitCode = false, now, exitCode(e.status)
	switch {
	case c.oom:
		c.status.Reason = OOMKilled
	case c.status.ExitCode == 0:
		c.status.Reason = Completed
	default:
		c.status.Reason = Failed
	}
	if c.namespace != nil {
		c.namespace.Close()
		c.namespace = nil
	}
	c.mu.Unlock()
	s.save(c)
	close(c.done)
}

// save writes a container's status and tells those who watch.
func (s *server) save(c *container) {
	path := StatusFile(s.dir, c.spec.ID)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		log.Print(err)
	}
	if err := writeJSON(path, c.current()); err != nil {
		log.Print("status is not saved: ", err)
	}
	s.changed()
}

// stop sends the signal to the main process, as container engines do, and kills the group after the grace period.
func (s *server) stop(c *container, sig syscall.Signal, grace time.Duration) error {
	status := c.current()
	if status.Running && grace > 0 {
		s.signal(c, status.Pid, sig)
		select {
		case <-c.done:
			return nil
		case <-time.After(grace):
		}
	}
	if c.current().Running {
		s.processes.kill(c.spec.ID, killLimit)
	}
	select {
	case <-c.done:
		return nil
	case <-time.After(killLimit):
		return fmt.Errorf("container %s does not end, though it was killed", c.spec.ID)
	}
}

// signal sends a signal to a main process that was not reaped yet. One that was stopped goes on, or it would not notice.
func (s *server) signal(c *container, pid int, sig syscall.Signal) {
	s.reaper.starting.RLock()
	defer s.reaper.starting.RUnlock()
	if p, ok := readProcess(pid); ok && p.parent == os.Getpid() && c.current().Running {
		_ = syscall.Kill(pid, sig)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// owner finds the container of an orphan: by its mount namespace, its session, its environment, or because there is but one.
func (s *server) owner(p process) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	namespace := mountNS(p.pid)
	only := ""
	for id, c := range s.containers {
		status := c.current()
		if status.Pid == p.pid || status.Pid != 0 && status.Pid == p.session || status.MountNS != 0 && status.MountNS == namespace {
			return id
		}
		only = id
	}
	if id := variable(p.pid, ContainerVariable); s.containers[id] != nil {
		return id
	}
	if len(s.containers) == 1 {
		return only
	}
	return ""
}

// adopt accounts for an orphan that was reaped.
func (s *server) adopt(session int, e ended) {
	owner := s.processes.ownerOf(e.pid)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[owner]
	if c == nil {
		for _, other := range s.containers {
			if other.current().Pid == session || len(s.containers) == 1 {
				c = other
			}
		}
	}
	if c != nil {
		c.mu.Lock()
		c.collected += e.cpu
		c.mu.Unlock()
	}
}
