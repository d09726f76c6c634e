package shim

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// patience is how long a client that is attached may be slow before it is let go, so that it cannot hold the container up.
const patience = 10 * time.Second

// fanout copies what is written to everybody who is attached.
type fanout struct {
	mu    sync.Mutex
	sinks map[*os.File]bool
	ended bool
}

// add attaches a sink, which is closed at the end; false when the end has come already.
func (f *fanout) add(sink *os.File) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	if f.sinks == nil {
		f.sinks = map[*os.File]bool{}
	}
	f.sinks[sink] = true
	return true
}

func (f *fanout) remove(sink *os.File) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sinks[sink] {
		delete(f.sinks, sink)
		sink.Close()
	}
}

func (f *fanout) Write(data []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for sink := range f.sinks {
		_ = sink.SetWriteDeadline(time.Now().Add(patience))
		if _, err := sink.Write(data); err != nil {
			delete(f.sinks, sink)
			sink.Close()
		}
	}
	return len(data), nil
}

func (f *fanout) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for sink := range f.sinks {
		sink.Close()
	}
	f.sinks = nil
}

// streams are the standard streams of a container.
type streams struct {
	log            *logFile
	stdin          *os.File // our end; nil when the container has none
	terminal       *os.File // the terminal's controlling end
	stdout, stderr fanout
	child          []*os.File // the container's ends: stdin, stdout, stderr
	ours           []*os.File // closed at the end
	copies         sync.WaitGroup
	stdinOnce      bool
	once           sync.Once
}

// openStreams makes the streams and begins to write the log.
func openStreams(c *Container) (*streams, error) {
	log, err := openLog(c.Log)
	if err != nil {
		return nil, err
	}
	s := &streams{log: log, stdinOnce: c.StdinOnce}
	if c.TTY {
		err = s.openTerminal(c.Stdin)
	} else {
		err = s.openPipes(c.Stdin)
	}
	if err != nil {
		s.release()
		s.close()
	}
	return s, err
}

func (s *streams) openTerminal(stdin bool) error {
	master, slave, err := OpenTerminal()
	if err != nil {
		return err
	}
	s.terminal, s.ours, s.child = master, []*os.File{master}, []*os.File{slave, slave, slave}
	if stdin {
		s.stdin = master
	}
	s.follow("stdout", master, &s.stdout)
	return nil
}

func (s *streams) openPipes(stdin bool) error {
	in, err := os.Open(os.DevNull)
	if stdin && err == nil {
		in.Close()
		in, s.stdin, err = os.Pipe()
		s.ours = append(s.ours, s.stdin)
	}
	if err != nil {
		return err
	}
	s.child = append(s.child, in)
	for _, out := range []struct {
		name string
		sink *fanout
	}{{"stdout", &s.stdout}, {"stderr", &s.stderr}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			return err
		}
		s.child, s.ours = append(s.child, writer), append(s.ours, reader)
		s.follow(out.name, reader, out.sink)
	}
	return nil
}

func (s *streams) follow(name string, from *os.File, sink *fanout) {
	s.copies.Go(func() { s.log.copy(name, io.TeeReader(from, sink)) })
}

// release closes the container's ends once it has them.
func (s *streams) release() {
	for _, f := range s.child {
		f.Close()
	}
	s.child = nil
}

// close ends the streams: after what is in the pipes has been written, or after the time, if somebody holds them open.
func (s *streams) close() {
	done := make(chan struct{})
	go func() { s.copies.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
	}
	for _, f := range s.ours {
		f.Close()
	}
	<-done
	s.stdout.end()
	s.stderr.end()
	s.log.close()
}

// feed copies a client's input to the container. A container of stdinOnce gets the end of the first client's input too.
func (s *streams) feed(from *os.File) {
	defer from.Close()
	if s.stdin == nil {
		return
	}
	_, err := io.Copy(s.stdin, from)
	if s.stdinOnce && s.terminal == nil && !errors.Is(err, os.ErrClosed) {
		s.once.Do(func() { s.stdin.Close() })
	}
}

func (s *streams) resize(size Size) {
	if s.terminal != nil {
		_ = ResizeTerminal(s.terminal, size)
	}
}
