package runtime

import (
	"io"
	"os"
	"sync"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"labkit.dev/embedded/shim"
)

// pipes connect a client's streams with the descriptors of a program. The program's ends are handed over to its shim.
type pipes struct {
	names  []string
	theirs []*os.File
	ours   []*os.File
	in     io.Reader
	input  *os.File // our end of the program's input; nil without
	copies sync.WaitGroup
	once   sync.Once
}

func newPipes(in io.Reader, out, failed io.WriteCloser) (*pipes, error) {
	p := &pipes{in: in}
	if in != nil {
		reader, writer, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		p.input = writer
		p.take("stdin", reader, writer)
	}
	for _, stream := range []struct {
		name string
		to   io.WriteCloser
	}{{"stdout", out}, {"stderr", failed}} {
		if stream.to == nil {
			continue
		}
		reader, writer, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, err
		}
		p.take(stream.name, writer, reader)
		p.copies.Go(func() { _, _ = io.Copy(stream.to, reader) })
	}
	return p, nil
}

// newTerminal makes a terminal instead of pipes.
func newTerminal(in io.Reader, out io.WriteCloser, resize <-chan remotecommand.TerminalSize) (*pipes, error) {
	master, slave, err := shim.OpenTerminal()
	if err != nil {
		return nil, err
	}
	p := &pipes{in: in}
	if in != nil {
		p.input = master
	}
	p.take("terminal", slave, master)
	if out != nil {
		p.copies.Go(func() { _, _ = io.Copy(out, master) })
	}
	if resize != nil {
		go func() {
			for size := range resize {
				_ = shim.ResizeTerminal(master, shim.Size{Rows: size.Height, Cols: size.Width})
			}
		}()
	}
	return p, nil
}

func (p *pipes) take(name string, theirs, ours *os.File) {
	p.names, p.theirs, p.ours = append(p.names, name), append(p.theirs, theirs), append(p.ours, ours)
}

// handedOver closes the program's ends on our side.
func (p *pipes) handedOver() {
	for _, f := range p.theirs {
		f.Close()
	}
	p.theirs = nil
}

// copyIn passes the client's input on, and its end unless that is a terminal's.
func (p *pipes) copyIn() {
	if p.input == nil {
		return
	}
	go func() {
		_, _ = io.Copy(p.input, p.in)
		if p.names[0] == "stdin" {
			p.input.Close()
		}
	}()
}

// drain waits until the client has all output, but not longer than the limit if there is one.
func (p *pipes) drain(limit time.Duration) {
	done := make(chan struct{})
	go func() { p.copies.Wait(); close(done) }()
	if limit == 0 {
		<-done
		return
	}
	select {
	case <-done:
	case <-time.After(limit):
	}
}

func (p *pipes) close() {
	p.once.Do(func() {
		p.handedOver()
		for _, f := range p.ours {
			f.Close()
		}
	})
}
