package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/sockets"
)

const (
	firstPause = 200 * time.Millisecond
	longPause  = 10 * time.Second
	steady     = 30 * time.Second // up for so long, a component's pause begins anew
)

// runner keeps one component running, until it is told to stop.
type runner struct {
	starter *starter

	mu        sync.Mutex
	component Component
	wanted    bool
	process   *os.Process
	started   time.Time
	restarts  int
	last      *Exit
	changed   chan struct{} // closed and replaced at each change of wanted
	idle      chan struct{} // closed when the runner's loop has ended
	tried     chan struct{} // closed when the first process has been started, or could not be
}

func newRunner(s *starter, c Component) *runner {
	r := &runner{starter: s, component: c, changed: make(chan struct{}), idle: make(chan struct{}), tried: make(chan struct{})}
	close(r.idle)
	close(r.tried)
	return r
}

// start makes the component run, if it does not yet. The channel is closed when its process has been started or could not be.
func (r *runner) start() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.wanted {
		r.wanted = true
		previous := r.idle
		tried := make(chan struct{})
		r.idle, r.tried = make(chan struct{}), tried
		go r.loop(previous, r.idle, sync.OnceFunc(func() { close(tried) }))
	}
	return r.tried
}

// loop runs the component again and again while it is wanted.
func (r *runner) loop(previous, idle chan struct{}, tried func()) {
	defer close(idle)
	defer tried()
	<-previous
	pause := firstPause
	for {
		begin := time.Now()
		exit := r.once(tried)
		r.mu.Lock()
		r.last, r.process = exit, nil
		wanted, changed := r.wanted, r.changed
		r.mu.Unlock()
		tried()
		if !wanted {
			return
		}
		if time.Since(begin) > steady {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-changed:
		}
		pause = min(2*pause, longPause)
		r.mu.Lock()
		wanted = r.wanted
		if wanted {
			r.restarts++
		}
		r.mu.Unlock()
		if !wanted {
			return
		}
	}
}

// once runs the component's process until it ends; started is called when there is one.
func (r *runner) once(started func()) *Exit {
	r.mu.Lock()
	c := r.component
	r.mu.Unlock()
	log, err := openLog(c.Log)
	if err != nil {
		return &Exit{Code: 128, Error: err.Error(), At: time.Now()}
	}
	defer log.Close()
	cmd := &exec.Cmd{Stdout: log, Stderr: log, SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}}
	spec := sockets.Spec{Argv: c.Argv, Env: append(os.Environ(), c.Env...), Dir: c.Dir, Plain: c.Policy == "none"}
	if err := r.starter.start(cmd, spec); err != nil {
		fmt.Fprintf(log, "%s supervise: %s does not start: %v\n", time.Now().Format(time.RFC3339), c.Name, err)
		code := 128
		var failure *sockets.StartError
		if errors.As(err, &failure) {
			code = failure.Code
		}
		return &Exit{Code: code, Error: err.Error(), At: time.Now()}
	}
	r.mu.Lock()
	r.process, r.started = cmd.Process, time.Now()
	if !r.wanted { // stopped while it was being started
		_ = cmd.Process.Kill()
	}
	r.mu.Unlock()
	started()
	leaveZombie(cmd.Process.Pid)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // helpers it may have left; the group's number is its own until it is waited for
	err = cmd.Wait()
	exit := &Exit{Code: cmd.ProcessState.ExitCode(), At: time.Now()}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Code, exit.Signal = 128+int(status.Signal()), unix.SignalName(status.Signal())
	} else if err != nil && exit.Code < 0 {
		exit.Error = err.Error()
	}
	return exit
}

// leaveZombie waits for a child's end and leaves it to be waited for.
func leaveZombie(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// stop ends the component: by the signal, and by SIGKILL after the grace period.
func (r *runner) stop(sig syscall.Signal, grace time.Duration) {
	r.mu.Lock()
	r.wanted = false
	close(r.changed)
	r.changed = make(chan struct{})
	process, idle := r.process, r.idle
	r.mu.Unlock()
	if process != nil {
		_ = process.Signal(sig)
		_ = process.Signal(syscall.SIGCONT) // a frozen one cannot end
	}
	select {
	case <-idle:
		return
	case <-time.After(grace):
	}
	if process != nil {
		_ = process.Kill()
	}
	<-idle
}

// signal sends a signal to the component's process. Between two runs there is none, and the signal is nobody's.
func (r *runner) signal(sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == nil {
		return nil
	}
	if err := r.process.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (r *runner) status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Name: r.component.Name, State: Stopped, Restarts: r.restarts, StartedAt: r.started, LastExit: r.last}
	switch {
	case r.process != nil:
		s.Pid, s.State = r.process.Pid, Running
	case r.wanted && r.last != nil && r.last.Error != "":
		s.State = Failed
	case r.wanted:
		s.State = BackOff
	}
	return s
}
