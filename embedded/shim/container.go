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

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/sockets"
)

// container is a container that was started.
type container struct {
	spec      Container
	streams   *streams
	namespace *os.File      // its mount namespace, for exec and to know its processes; nil without one
	pids      *os.File      // its process namespace, for exec; nil without one
	list      string        // where the list of another container's processes is mounted for it; "" if it is not
	first     bool          // its main process is the first one of that namespace, whose end ends all the others
	user      *User         // who its processes are in its user namespace; nil without one
	done      chan struct{} // closed when it has ended and nothing of it is left

	mu        sync.Mutex // guards what follows
	status    Status
	keepers   map[*kept]bool // those of its programs, where it has no process namespace
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
	c.letGo()
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
	err = s.run(c, &exec.Cmd{Stdin: streams.child[0], Stdout: streams.child[1], Stderr: streams.child[2]})
	streams.release()
	if err != nil {
		streams.close()
	}
	return err
}

// run starts a container's main process.
func (s *server) run(c *container, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: c.spec.TTY, Pdeathsig: syscall.SIGKILL}
	if s.state.Mounts && c.spec.Rootfs != nil {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
		if err := s.mountTmpfs(c.spec.Tmpfs); err != nil {
			return err
		}
	}
	p := program{container: c, argv: c.spec.Argv, plan: c.spec.Rootfs, cmd: cmd}
	if err := s.choosePids(c, &p); err != nil {
		return err
	}
	exit := make(chan ended, 1)
	main, err := s.beginAs(&p, func(e ended) { exit <- e })
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.status = Status{ID: c.spec.ID, Running: true, Pid: main.Pid, Started: main.Started, StartedAt: time.Now().UnixNano()}
	if p.keeper != nil {
		c.status.Keeper = p.keeper.identity
	}
	if cmd.SysProcAttr.Cloneflags != 0 {
		c.namespace = namespaceOf(main, "mnt")
	}
	if c.first {
		c.pids = namespaceOf(main, "pid")
	}
	c.mu.Unlock()
	s.save(c)
	go func() { s.finish(c, <-exit) }()
	return nil
}

// program is what is started in a container: its main process, or a command.
type program struct {
	container *container
	cmd       *exec.Cmd
	argv      []string
	plan      *rootfs.Plan
	user      *User    // who it sees itself as, in a user namespace to be made
	mapLate   bool     // that is named when the process is there
	join      *os.File // a process namespace to start it in; nil for none
	mounts    *os.File // a mount namespace to start it in; nil for ours
	keeper    *kept    // of the program, where it has no process namespace; nil for none
}

// begin starts a program under the pod's socket policy. When that fails the program does not run: without its filter it would
// listen on the machine's own addresses. Whether filters work here was found out by `labkit up`, before there was any pod.
func (s *server) begin(p *program, done func(ended)) (main identity, err error) {
	c := p.container
	spec := sockets.Spec{
		Argv: p.argv, Env: c.spec.Env, Dir: c.spec.Dir,
		OOMScore: c.spec.OOMScore, Processes: s.processLimit(),
	}
	if p.plan != nil {
		spec.Rootfs = p.plan.Encode()
	}
	if p.mapLate {
		spec.Prepare = s.mapUser(p.user)
	}
	if p.keeper != nil {
		done = p.keeper.endsWith(done)
	}
	start := func() (int, error) {
		attempt := *p.cmd // it may be tried again in another way
		if p.keeper != nil {
			p.keeper.keep(&attempt, &spec)
		}
		if err := s.sockets.Start(&attempt, spec); err != nil {
			return 0, err
		}
		pid := attempt.Process.Pid
		onAnotherThread(func() { main = s.processes.claim(pid, claim{c.spec.ID, p.keeper != nil}) })
		return pid, attempt.Process.Release()
	}
	_, err = s.reaper.start(start, done)
	if p.keeper == nil {
		return main, err
	}
	return p.keeper.begun(main, err)
}

// killLimit bounds the killing of a group; a process in an uninterruptible wait can resist it.
const killLimit = 10 * time.Second

// finish cleans up after a container's main process: like a container's, its other processes do not outlive it. Of one that was
// the first process of a namespace, none does.
func (s *server) finish(c *container, e ended) {
	now := time.Now().UnixNano()
	if !s.killAll(c) {
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
	c.letGo()
	c.mu.Unlock()
	s.save(c)
	close(c.done)
}

// letGo gives up the namespaces of a container that has ended; its lock is held.
func (c *container) letGo() {
	for _, held := range []*os.File{c.namespace, c.pids} {
		if held != nil {
			held.Close()
		}
	}
	c.namespace, c.pids = nil, nil
	if c.list != "" {
		_ = unix.Unmount(c.list, unix.MNT_DETACH)
		_ = os.Remove(c.list)
	}
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

// killAll kills a container's processes; false when some are left after the time.
func (s *server) killAll(c *container) bool {
	c.mu.Lock()
	status, first := c.status, c.first
	for k := range c.keepers {
		k.end()
	}
	c.mu.Unlock()
	if first && status.Running {
		_ = identity{status.Pid, status.Started}.signal(syscall.SIGKILL)
	}
	return s.processes.kill(c.spec.ID, killLimit)
}

// stop sends the signal to the main process, as container engines do, and kills the group after the grace period.
func (s *server) stop(c *container, sig syscall.Signal, grace time.Duration) error {
	if c.current().Running && grace > 0 {
		c.signal(sig)
		select {
		case <-c.done:
			return nil
		case <-time.After(grace):
		}
	}
	if c.current().Running {
		s.killAll(c)
	}
	select {
	case <-c.done:
		return nil
	case <-time.After(killLimit):
		return fmt.Errorf("container %s does not end, though it was killed", c.spec.ID)
	}
}

// signal sends a signal to a container's main process. One that was stopped goes on, or it would not notice.
func (c *container) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.keepers {
		if k.main {
			k.order(byte(sig))
			return
		}
	}
	main := identity{c.status.Pid, c.status.Started}
	_ = main.signal(sig)
	_ = main.signal(syscall.SIGCONT)
}

// owner finds the container of an orphan: by its mount namespace, which is held open and so has its number for itself, by its
// environment, or because there is but one.
func (s *server) owner(p process) string {
	namespace := mountNS(p.Pid)
	marked := variable(p.Pid, ContainerVariable)
	if !p.exists() {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for id, c := range s.containers {
		c.mu.Lock()
		held := namespace != 0 && c.namespace != nil && inode(c.namespace) == namespace
		c.mu.Unlock()
		if held {
			return id
		}
		all = append(all, id)
	}
	if s.containers[marked] != nil {
		return marked
	}
	if len(all) == 1 {
		return all[0]
	}
	return ""
}

// adopt accounts for an orphan that was reaped.
func (s *server) adopt(i identity, e ended) {
	owner := s.processes.ownerOf(i)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[owner]
	if c == nil && len(s.containers) == 1 {
		for _, only := range s.containers {
			c = only
		}
	}
	if c != nil {
		c.mu.Lock()
		c.collected += e.cpu
		c.mu.Unlock()
	}
}
