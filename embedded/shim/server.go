package shim

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"labkit.dev/embedded/sockets"
)

// server is the daemon of one pod.
type server struct {
	dir       string
	pod       Pod
	state     State
	sockets   *sockets.Supervisor
	reaper    *reaper
	processes *table
	proc      *os.File // our own /proc

	pauseOnce sync.Mutex // held while the pod's first process is started
	pause     pause

	mu         sync.Mutex
	containers map[string]*container
	watchers   map[chan struct{}]bool
	tmpfs      map[string]bool // directories that are mounted
	ending     bool
}

func newServer(dir string, pod Pod, state State) *server {
	s := &server{dir: dir, pod: pod, state: state, sockets: sockets.New(pod.Policy), containers: map[string]*container{}, watchers: map[chan struct{}]bool{}, tmpfs: map[string]bool{}}
	s.processes = newTable(s.owner)
	s.proc, _ = os.Open("/proc")
	s.reaper = newReaper(s.adopt)
	return s
}

func (s *server) serve(listener *net.UnixListener) {
	for {
		accepted, err := listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, for now: the pod lives on
			log.Print("a request has to wait: ", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go s.answer(newConn(accepted))
	}
}

func (s *server) answer(client *conn) {
	defer client.Close()
	if !sameUser(client.UnixConn) {
		return
	}
	files, err := client.receiveFiles()
	if err != nil {
		return
	}
	var q Request
	if err := client.receive(&q); err != nil {
		closeAll(files)
		_ = client.send(Response{Error: "not a request: " + err.Error()})
		return
	}
	switch q.Op {
	case "exec":
		s.exec(client, q, files)
		return
	case "attach":
		s.attach(client, q, files)
		return
	}
	closeAll(files) // nothing else takes any
	if q.Op == "watch" {
		s.watch(client)
		return
	}
	answer, err := s.do(q)
	if err != nil {
		answer.Error = err.Error()
	}
	if err := client.send(answer); err != nil {
		log.Print(q.Op, ": ", err)
	}
	if q.Op == "shutdown" {
		os.Exit(0)
	}
}

// do carries out a request that has one answer.
func (s *server) do(q Request) (Response, error) {
	switch q.Op {
	case "start":
		if q.Container == nil {
			return Response{}, fmt.Errorf("start: no container")
		}
		return Response{}, s.startContainer(q.Container)
	case "stats":
		return Response{Stats: s.measure(q.ID)}, nil
	case "shutdown":
		s.end()
		return Response{}, nil
	}
	c := s.find(q.ID)
	if c == nil {
		if q.Op == "stop" || q.Op == "remove" {
			return Response{}, nil
		}
		return Response{}, fmt.Errorf("%s: no container %s", q.Op, q.ID)
	}
	switch q.Op {
	case "stop":
		return Response{}, s.stop(c, syscall.Signal(q.Signal), time.Duration(q.GraceMS)*time.Millisecond)
	case "remove":
		err := s.stop(c, syscall.SIGKILL, 0)
		s.mu.Lock()
		delete(s.containers, q.ID)
		s.mu.Unlock()
		return Response{}, err
	case "reopen":
		if c.streams == nil {
			return Response{}, fmt.Errorf("reopen: container %s has no log", q.ID)
		}
		return Response{}, c.streams.log.reopen()
	case "update":
		c.mu.Lock()
		c.limit = q.Memory
		c.mu.Unlock()
		return Response{}, nil
	}
	return Response{}, fmt.Errorf("no operation %q", q.Op)
}

func (s *server) find(id string) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.containers[id]
}

// changed wakes those who watch.
func (s *server) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// watch sends the statuses of all containers, now and at each change, until the client goes away.
func (s *server) watch(client *conn) {
	wake := make(chan struct{}, 1)
	wake <- struct{}{}
	s.mu.Lock()
	s.watchers[wake] = true
	s.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		_, _ = client.reader.ReadByte()
		close(gone)
	}()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, wake)
		s.mu.Unlock()
	}()
	for {
		select {
		case <-gone:
			return
		case <-wake:
		}
		if client.send(Response{Started: true, Statuses: s.statuses()}) != nil {
			return
		}
	}
}

func (s *server) statuses() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Status
	for _, c := range s.containers {
		if status := c.current(); status.ID != "" {
			out = append(out, status)
		}
	}
	return out
}

// end kills everything of the pod. Its containers' statuses are written before it returns, unless one resists being killed.
func (s *server) end() {
	s.mu.Lock()
	s.ending = true
	containers := make([]*container, 0, len(s.containers))
	for _, c := range s.containers {
		containers = append(containers, c)
		c.mu.Lock()
		for k := range c.keepers {
			k.end()
		}
		c.mu.Unlock()
	}
	s.mu.Unlock()
	if !s.processes.kill("", killLimit) {
		log.Print("some processes of the pod cannot be killed")
	}
	limit, cancel := context.WithTimeout(context.Background(), killLimit)
	defer cancel()
	for _, c := range containers {
		select {
		case <-c.done:
		case <-limit.Done():
			log.Printf("container %s does not end", c.spec.ID)
		}
	}
	s.processes.kill("", killLimit)
}

// Main is the main function of `shim pod --dir DIR`: it starts the pod's daemon and returns when that listens.
func Main(args []string) error {
	if len(args) < 2 || args[0] != "--dir" {
		return fmt.Errorf("usage: shim pod --dir DIRECTORY")
	}
	dir := args[1]
	var pod Pod
	if err := readJSON(dir+"/pod.json", &pod); err != nil {
		return err
	}
	if len(args) > 2 && args[2] == "--serve" {
		return serve(dir, pod, args[3:])
	}
	return daemonize(dir, pod)
}
