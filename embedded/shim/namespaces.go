package shim

import (
	"bufio"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/sockets"
)

// choosePids says in which process namespace a container's main process starts. With one of its own it is the first process:
// signals without a handler do not reach it, and its end ends all others. Without any it has a keeper.
func (s *server) choosePids(c *container, p *program) error {
	attr := p.cmd.SysProcAttr
	if !s.state.Mounts || !s.pod.Pids || c.spec.Pids == "node" || p.plan == nil {
		keeper, err := newKept(c, true)
		p.keeper = keeper
		return err
	}
	plan := *p.plan
	plan.Proc = rootfs.NewProc
	p.plan = &plan
	if c.spec.Pids == "" {
		attr.Cloneflags |= syscall.CLONE_NEWPID
		c.first = true
		return nil
	}
	attr.Pdeathsig = 0 // it dies with the first process there; see Pdeathsig in os/exec: the parent cannot be seen from there
	if c.spec.Pids == "pod" {
		first, err := s.firstProcess()
		c.pids, p.join, plan.Proc = first.pids, first.pids, first.proc
		return err
	}
	other := s.find(c.spec.Pids)
	if other == nil {
		return fmt.Errorf("container %s, whose processes are to be seen, is not there", c.spec.Pids)
	}
	other.mu.Lock()
	pids, err := duplicate(other.pids)
	other.mu.Unlock()
	c.pids, p.join = pids, pids
	if err != nil || c.spec.User == nil {
		return err
	}
	list := filepath.Join(s.dir, "proc-"+c.spec.ID) // a user namespace cannot mount the process list of another one
	if err := os.MkdirAll(list, 0o700); err != nil {
		return err
	}
	c.list, plan.Proc = list, list
	if _, err := s.startPause(pids, list); err != nil {
		return fmt.Errorf("the processes of container %s: %w", other.spec.ID, err)
	}
	return nil
}

// pause is the first process of a pod whose containers share their process namespace.
type pause struct {
	pids *os.File
	proc string // where its /proc is mounted
}

// firstProcess is the pod's first process, which is started when a container needs it.
func (s *server) firstProcess() (pause, error) {
	s.pauseOnce.Lock()
	defer s.pauseOnce.Unlock()
	if s.pause.pids == nil {
		proc := filepath.Join(s.dir, "proc")
		if err := os.MkdirAll(proc, 0o700); err != nil {
			return pause{}, err
		}
		main, err := s.startPause(nil, proc)
		if err != nil {
			return pause{}, fmt.Errorf("the pod's first process: %w", err)
		}
		s.pause = pause{namespaceOf(main, "pid"), proc}
	}
	pids, err := duplicate(s.pause.pids)
	return pause{pids, s.pause.proc}, err
}

// startPause starts a process that mounts the list of the processes around it. In a process namespace that is there already it
// ends then; without one it is the first process of a new one.
func (s *server) startPause(join *os.File, proc string) (main identity, err error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return main, err
	}
	defer reader.Close()
	command, attr := "pause", &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID}
	if join != nil {
		command, attr = "list", &syscall.SysProcAttr{Setsid: true} // without Pdeathsig, see choosePids
	}
	cmd := exec.Command("/proc/self/exe", command, proc)
	cmd.Args[0] = command
	cmd.Env = append(marks(), "GOMAXPROCS=1", "GOGC=off")
	cmd.Dir = "/"
	cmd.Stdout = writer
	cmd.SysProcAttr = attr
	start := func() (int, error) {
		err := cmd.Start()
		writer.Close()
		if err != nil {
			return 0, err
		}
		main = s.processes.claim(cmd.Process.Pid, claim{"", true})
		return cmd.Process.Pid, cmd.Process.Release()
	}
	failed := inside(nil, join, func() { _, err = s.reaper.start(start, func(ended) {}) })
	if err = errors.Join(failed, err); err != nil {
		writer.Close()
		return main, err
	}
	answer, _ := bufio.NewReader(reader).ReadString('\n')
	if answer = strings.TrimSpace(answer); answer != "ready" {
		_ = main.signal(syscall.SIGKILL)
		return main, fmt.Errorf("it does not start: %s", answer)
	}
	return main, nil
}

// Pause is the main function of a pod's first process: it mounts its /proc where the pod's containers get it from, and waits for
// orphans.
func Pause(args []string) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE)
	_ = os.WriteFile("/proc/self/comm", []byte("pause"), 0)
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	List(args)
	os.Stdout.Close()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for range ended {
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
	}
}

// List mounts the list of the processes of the namespace that it is in.
func List(args []string) {
	if err := unix.Mount("proc", args[0], "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		fmt.Println("mount /proc:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
}

// TryPids is the main function of the probe for process namespaces: it mounts the list of its own.
func TryPids() {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// PidsSupported says why containers cannot have process namespaces, as the shim program finds it; nil when they can.
func PidsSupported(program string) error {
	cmd := exec.Command(program, "try-pids")
	cmd.SysProcAttr = sockets.Namespaces()
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
	if told, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("process namespaces: %w %s", err, strings.TrimSpace(string(told)))
	}
	return nil
}

// MountsSupported says why pods cannot have mounts of their own, as the shim program finds it; nil when they can.
func MountsSupported(program string) error { return trySupport(program, "try-mounts") }

// UsersSupported says why containers that have mounts cannot be shown as another user; nil when they can.
func UsersSupported(program string) error { return trySupport(program, "try-user") }

func trySupport(program, probe string) error {
	dir, err := os.MkdirTemp("", "labkit-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return anyOf(isolations(), func(way *syscall.SysProcAttr) error {
		cmd := exec.Command(program, probe, dir)
		cmd.SysProcAttr = way
		if told, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w %s", probe, err, strings.TrimSpace(string(told)))
		}
		return nil
	})
}

// TryIsolation is the main function of these probes: it does what a pod's shim and the start of a container will.
func TryIsolation(probe, dir string) error {
	if err := tryMounts(dir); err != nil || probe == "try-mounts" {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "try-nothing")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, AmbientCaps: namespaceCapabilities}
	(User{UID: 1, GID: 1}).show(cmd.SysProcAttr)
	return cmd.Run()
}

// namespaceOf opens a namespace of a process: "mnt" or "pid"; nil when the process has ended.
func namespaceOf(main identity, kind string) *os.File {
	held, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", main.Pid, kind))
	if err != nil {
		return nil
	}
	if !main.exists() { // another's
		held.Close()
		return nil
	}
	return held
}

func duplicate(f *os.File) (*os.File, error) {
	if f == nil {
		return nil, fmt.Errorf("the process namespace is gone")
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func inode(f *os.File) uint64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Ino
}

// onAnotherThread calls do on a thread that is in this process's own namespaces, wherever the caller's is.
func onAnotherThread(do func()) {
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	<-done
}

// inside calls do on a thread that is in other namespaces: of mounts, and of processes for its children. Each may be nil.
func inside(mounts, pids *os.File, do func()) error {
	if mounts == nil && pids == nil {
		do()
		return nil
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		back, err := enter(mounts, pids)
		if err == nil {
			do()
		}
		stuck := back()
		result <- err
		if stuck != nil { // the thread must not do anything else, nor end: what it started would be killed
			log.Print("a thread cannot leave a container: ", stuck)
			select {}
		}
	}()
	return <-result
}

// enter moves this thread into namespaces; back moves it out again, also after a failure.
func enter(mounts, pids *os.File) (back func() error, err error) {
	var steps []func() error
	back = func() error {
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	}
	own := func(kind string) (int, error) {
		return unix.Open("/proc/thread-self/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	leave := func(fd, kind int) {
		steps = append(steps, func() error { defer unix.Close(fd); return unix.Setns(fd, kind) })
	}
	if pids != nil { // before the mounts, from which our own /proc is not seen
		fd, err := own("pid")
		if err != nil {
			return back, err
		}
		leave(fd, unix.CLONE_NEWPID)
		if err := unix.Setns(int(pids.Fd()), unix.CLONE_NEWPID); err != nil {
			return back, fmt.Errorf("process namespace: %w", err)
		}
	}
	if mounts != nil {
		fd, err := own("mnt")
		if err != nil {
			return back, err
		}
		leave(fd, unix.CLONE_NEWNS)
		if err := rootfs.Enters(int(mounts.Fd())); err != nil {
			return back, err
		}
	}
	return back, nil
}
