package supervise

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/sockets"
)

const (
	defaultGrace = 10 * time.Second
	callLimit    = 5 * time.Minute // a shutdown stops one component after the other
)

// Server is the supervisor of one cluster.
type Server struct {
	Slot    int
	starter *starter
	mu      sync.Mutex
	order   []string // as they were first applied
	runners map[string]*runner
	closing bool // nothing is started any more
	done    chan struct{}
	once    sync.Once
}

// ErrSlotBusy is the error of Run when another cluster of this machine holds the slot.
var ErrSlotBusy = errors.New("the slot is held by another running cluster")

// Run supervises the cluster whose state is in dir, until it is told to shut down or gets SIGTERM. The control socket is
// dir/control.sock; when it answers, the slot is ours.
func Run(dir string, slot int) error {
	lock, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("@labkit-slot-%d", slot), Net: "unix"})
	if err != nil {
		return fmt.Errorf("slot %d: %w (%v)", slot, ErrSlotBusy, err)
	}
	defer lock.Close()
	listener, err := listen(dir)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := announce(dir); err != nil {
		return err
	}
	s := &Server{Slot: slot, starter: newStarter(), runners: map[string]*runner{}, done: make(chan struct{})}
	ended := make(chan os.Signal, 2)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP)
	go func() {
		<-ended
		s.shutdown(nil)
		s.end()
	}()
	go s.accept(listener)
	for minute := time.NewTicker(time.Minute); ; {
		select {
		case <-minute.C:
			s.rotateLogs()
		case <-s.done:
			return nil
		}
	}
}

// listen makes the control socket. Its path may be longer than a socket's name can be, so it goes by the directory's descriptor.
func listen(dir string) (*net.UnixListener, error) {
	if _, err := Call(dir, []byte(`{"op":"status"}`)); err == nil {
		return nil, fmt.Errorf("%s: a supervisor runs here already", dir)
	}
	handle, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	_ = os.Remove(filepath.Join(dir, "control.sock")) // of one that was killed
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	name := fmt.Sprintf("/proc/self/fd/%d/control.sock", handle.Fd())
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	return listener, nil
}

func (s *Server) accept(listener *net.UnixListener) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		go s.converse(conn)
	}
}

// converse answers a client's requests, one line each. Only our own user is answered.
func (s *Server) converse(conn *net.UnixConn) {
	defer conn.Close()
	if !sockets.SameUser(conn) {
		return
	}
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var request Request
		response := Response{Slot: s.Slot, Pid: os.Getpid()}
		if err := json.Unmarshal(line, &request); err != nil {
			response.Error = "not a request: " + err.Error()
		} else if err := s.do(request); err != nil {
			response.Error = err.Error()
		}
		response.Components = s.status()
		if json.NewEncoder(conn).Encode(response) != nil {
			return
		}
		if request.Op == "shutdown" {
			s.end()
			return
		}
	}
}

func (s *Server) do(q Request) error {
	switch q.Op {
	case "status":
		return nil
	case "apply":
		return s.apply(q.Components)
	case "run":
		return runOnce(q.Argv)
	case "shutdown":
		s.shutdown(q.Order)
		return nil
	}
	s.mu.Lock()
	r := s.runners[q.Name]
	s.mu.Unlock()
	if r == nil {
		return fmt.Errorf("no component %q", q.Name)
	}
	grace := defaultGrace
	if q.GraceS > 0 {
		grace = time.Duration(q.GraceS * float64(time.Second))
	}
	sig := syscall.SIGTERM
	if q.Signal != "" {
		if sig = unix.SignalNum("SIG" + q.Signal); sig == 0 {
			return fmt.Errorf("no signal %q", q.Signal)
		}
	}
	switch q.Op {
	case "start":
		return s.start(r)
	case "stop":
		r.stop(sig, grace)
	case "remove":
		r.stop(sig, grace)
		s.forget(q.Name)
	case "signal":
		if err := r.signal(sig); err != nil {
			return fmt.Errorf("%s %w", q.Name, err)
		}
	default:
		return fmt.Errorf("no operation %q", q.Op)
	}
	return nil
}

// apply adds or changes components and starts them. One that changed is restarted.
func (s *Server) apply(components []Component) error {
	for _, c := range components {
		if c.Name == "" || len(c.Argv) == 0 || c.Log == "" {
			return fmt.Errorf("component %q: name, argv and log are needed", c.Name)
		}
		s.mu.Lock()
		r := s.runners[c.Name]
		if r == nil {
			r = newRunner(s.starter, c)
			s.runners[c.Name] = r
			s.order = append(s.order, c.Name)
		}
		s.mu.Unlock()
		r.mu.Lock()
		same := r.component.equal(c)
		r.mu.Unlock()
		if !same {
			r.stop(syscall.SIGTERM, defaultGrace)
		}
		r.mu.Lock()
		r.component = c
		r.mu.Unlock()
		if err := s.start(r); err != nil {
			return err
		}
	}
	return nil
}

// start starts a component and waits until its process is there or could not be started. It fails once a shutdown has
// begun, which might have passed the component by.
func (s *Server) start(r *runner) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errors.New("the supervisor is shutting down")
	}
	tried := r.start()
	s.mu.Unlock()
	<-tried
	return nil
}

func (s *Server) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.runners, name)
	s.order = slices.DeleteFunc(s.order, func(n string) bool { return n == name })
}

func (s *Server) status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.order))
	for _, name := range s.order {
		out = append(out, s.runners[name].status())
	}
	return out
}

// rotateLogs keeps the logs of long-running components short. What cannot be rotated goes on growing.
func (s *Server) rotateLogs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runners {
		r.mu.Lock()
		_ = rotate(r.component.Log)
		r.mu.Unlock()
	}
}

// end lets Run return.
func (s *Server) end() { s.once.Do(func() { close(s.done) }) }

// shutdown stops everything: what order names first, then the rest, last started first.
func (s *Server) shutdown(order []string) {
	s.mu.Lock()
	s.closing = true
	names := slices.Clone(s.order)
	s.mu.Unlock()
	slices.Reverse(names)
	for _, name := range append(slices.Clone(order), names...) {
		s.mu.Lock()
		r := s.runners[name]
		s.mu.Unlock()
		if r != nil {
			r.stop(syscall.SIGTERM, defaultGrace)
		}
	}
}

// Call sends one request, a line of JSON, to the supervisor of the cluster in dir, and returns the line that answers it.
func Call(dir string, request []byte) ([]byte, error) {
	handle, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", handle.Fd()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callLimit))
	if _, err := conn.Write(append(request, '\n')); err != nil {
		return nil, err
	}
	return bufio.NewReader(conn).ReadBytes('\n')
}
