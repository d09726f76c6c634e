package shim

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"labkit.dev/embedded/sockets"
)

// Client speaks to the shim of the pod in a directory.
type Client struct{ Dir string }

// ReadState reads what the pod's shim told when it started.
func (c Client) ReadState() (s State, err error) {
	return s, readJSON(filepath.Join(c.Dir, "shim.json"), &s)
}

// dial connects and sends a request.
func (c Client) dial(q Request, files ...*os.File) (*conn, error) {
	var out *conn
	err := inDirectory(c.Dir, socketName, func(name string) error {
		raw, err := net.DialTimeout("unix", name, 5*time.Second)
		if err != nil {
			return err
		}
		out = newConn(raw.(*net.UnixConn))
		if err = out.sendFiles(files); err == nil {
			err = out.send(q)
		}
		if err != nil {
			out.Close()
		}
		return err
	})
	if err != nil {
		return nil, &GoneError{err}
	}
	return out, nil
}

// GoneError tells that the shim does not answer: it was killed.
type GoneError struct{ Err error }

func (e *GoneError) Error() string { return "the pod's shim does not answer: " + e.Err.Error() }
func (e *GoneError) Unwrap() error { return e.Err }

// call sends a request and waits for its only answer.
func (c Client) call(ctx context.Context, q Request) (Response, error) {
	connection, err := c.dial(q)
	if err != nil {
		return Response{}, err
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { connection.Close() })()
	return answer(ctx, connection)
}

func answer(ctx context.Context, connection *conn) (Response, error) {
	var r Response
	if err := connection.receive(&r); err != nil {
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		return r, &GoneError{err}
	}
	if r.Error != "" && r.Code != 0 {
		return r, &sockets.StartError{Code: r.Code, Message: r.Error}
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Start starts a container. When it fails, the container's status tells why, too.
func (c Client) Start(ctx context.Context, spec Container) error {
	_, err := c.call(ctx, Request{Op: "start", Container: &spec})
	return err
}

// Stop sends the signal to a container's main process and kills all its processes after the grace period. It returns when
// the container has ended.
func (c Client) Stop(ctx context.Context, id string, signal int, grace time.Duration) error {
	_, err := c.call(ctx, Request{Op: "stop", ID: id, Signal: signal, GraceMS: grace.Milliseconds()})
	return err
}

// Remove ends a container and makes the shim forget it.
func (c Client) Remove(ctx context.Context, id string) error {
	_, err := c.call(ctx, Request{Op: "remove", ID: id})
	return err
}

// ReopenLog goes on in a new log file, after the old one was renamed.
func (c Client) ReopenLog(ctx context.Context, id string) error {
	_, err := c.call(ctx, Request{Op: "reopen", ID: id})
	return err
}

// SetMemoryLimit changes the limit, in bytes; 0 is none.
func (c Client) SetMemoryLimit(ctx context.Context, id string, bytes uint64) error {
	_, err := c.call(ctx, Request{Op: "update", ID: id, Memory: bytes})
	return err
}

// Stats tells what the running containers use, by their ids.
func (c Client) Stats(ctx context.Context) (map[string]Stats, error) {
	r, err := c.call(ctx, Request{Op: "stats"})
	return r.Stats, err
}

// Shutdown ends the pod: all processes and the shim itself.
func (c Client) Shutdown(ctx context.Context) error {
	_, err := c.call(ctx, Request{Op: "shutdown"})
	return err
}

// Watch calls each with the statuses of all containers, now and at every change. It returns when ctx ends, with nil, or when
// the shim has gone.
func (c Client) Watch(ctx context.Context, each func([]Status)) error {
	connection, err := c.dial(Request{Op: "watch"})
	if err != nil {
		return err
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { connection.Close() })()
	for {
		r, err := answer(ctx, connection)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		each(r.Statuses)
	}
}

// Session is a program or a client in a container, connected to it.
type Session struct {
	connection *conn
	ctx        context.Context
	stop       func() bool
}

// Exec runs a program in a container. The files become its streams, as they are named ("stdin", "stdout", "stderr"), or its
// terminal if there is one alone and tty is set. When ctx ends, the program is killed.
func (c Client) Exec(ctx context.Context, id string, argv []string, tty bool, names []string, files []*os.File) (*Session, error) {
	return c.session(ctx, Request{Op: "exec", ID: id, Argv: argv, TTY: tty, Streams: names}, files)
}

// Attach connects files to the streams of a container.
func (c Client) Attach(ctx context.Context, id string, names []string, files []*os.File) (*Session, error) {
	return c.session(ctx, Request{Op: "attach", ID: id, Streams: names}, files)
}

func (c Client) session(ctx context.Context, q Request, files []*os.File) (*Session, error) {
	connection, err := c.dial(q, files...)
	if err != nil {
		return nil, err
	}
	s := &Session{connection, ctx, context.AfterFunc(ctx, func() { connection.Close() })}
	if _, err := answer(ctx, connection); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Resize tells the terminal of an attached container its size.
func (s *Session) Resize(size Size) error { return s.connection.send(size) }

// Wait returns the exit code, when the program or the container has ended.
func (s *Session) Wait() (int, error) {
	r, err := answer(s.ctx, s.connection)
	if err != nil {
		return 0, err
	}
	if r.Exit == nil {
		return 0, errors.New("the shim's answer has no exit code")
	}
	return *r.Exit, nil
}

// Close ends the session; a program that runs in it is killed.
func (s *Session) Close() {
	s.stop()
	s.connection.Close()
}
