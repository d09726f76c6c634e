package runtime

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
	"labkit.dev/embedded/loopback"
	"labkit.dev/embedded/shim"
)

// streamServer serves exec, attach and port-forward to the kubelet, which passes them on to its clients. It speaks plain HTTP
// on loopback, as the kubelet trusts no other certificate than the system's; every path has a secret of 128 bits, and a token
// that is good for one use within a minute.
type streamServer struct {
	streaming.Server
	http *http.Server
}

func newStreamServer(r *Runtime) (*streamServer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // never fails
	config := streaming.DefaultConfig
	config.BaseURL = &url.URL{Scheme: "http", Host: listener.Addr().String(), Path: "/" + hex.EncodeToString(secret) + "/"}
	server, err := streaming.NewServer(config, streams{r})
	if err != nil {
		listener.Close()
		return nil, err
	}
	s := &streamServer{server, &http.Server{Handler: server, ReadHeaderTimeout: 30 * time.Second}}
	go func() { _ = s.http.Serve(listener) }()
	return s, nil
}

func (s *streamServer) close() error { return s.http.Close() }

// Exec returns the address at which the command is run.
func (r *Runtime) Exec(_ context.Context, q *cri.ExecRequest) (*cri.ExecResponse, error) {
	if _, err := r.running(q.ContainerId); err != nil {
		return nil, err
	}
	return r.streaming.GetExec(q)
}

// Attach returns the address at which the container's streams are.
func (r *Runtime) Attach(_ context.Context, q *cri.AttachRequest) (*cri.AttachResponse, error) {
	c, err := r.running(q.ContainerId)
	if err != nil {
		return nil, err
	}
	q.Tty = c.config.Tty
	if q.Tty {
		q.Stderr = false
	}
	return r.streaming.GetAttach(q)
}

// PortForward returns the address at which the pod's ports are.
func (r *Runtime) PortForward(_ context.Context, q *cri.PortForwardRequest) (*cri.PortForwardResponse, error) {
	s, err := r.sandbox(q.PodSandboxId)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	ready := s.Ready
	r.mu.Unlock()
	if !ready {
		return nil, status.Errorf(codes.FailedPrecondition, "sandbox %q is not running", q.PodSandboxId)
	}
	return r.streaming.GetPortForward(q)
}

// streams carries out what the streaming server is asked for.
type streams struct{ r *Runtime }

// Exec runs a command in a container, connected to the client's streams.
func (s streams) Exec(ctx context.Context, id string, argv []string, in io.Reader, out, failed io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	c, err := s.r.running(id)
	if err != nil {
		return err
	}
	code, err := s.r.exec(ctx, c, argv, in, out, failed, tty, resize)
	if err == nil && code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return err
}

// Attach connects the client to the streams of a container, until that or the client ends.
func (s streams) Attach(ctx context.Context, id string, in io.Reader, out, failed io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	c, err := s.r.running(id)
	if err != nil {
		return err
	}
	if !c.config.Stdin {
		in = nil
	}
	p, err := newPipes(in, out, failed)
	if err != nil {
		return err
	}
	defer p.close()
	session, err := c.sandbox.shim.Attach(ctx, id, p.names, p.theirs)
	p.handedOver()
	if err != nil {
		return err
	}
	defer session.Close()
	p.copyIn()
	if tty {
		go func() {
			for size := range resize {
				_ = session.Resize(shim.Size{Rows: size.Height, Cols: size.Width})
			}
		}()
	}
	p.drain(0) // the shim closes the outputs when the container has ended
	return nil
}

// PortForward connects a stream to a port of the pod, wherever in the pod its server listens: localhost is the pod's address.
func (s streams) PortForward(ctx context.Context, id string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	pod, err := s.r.sandbox(id)
	if err != nil {
		return err
	}
	if port <= 0 || port > 65535 {
		return fmt.Errorf("there is no port %d", port)
	}
	targets := []netip.AddrPort{netip.AddrPortFrom(loopback.Map(pod.Address), loopback.Port(uint16(port)))}
	if pod.HostNetwork {
		targets = append(targets, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)))
	}
	var conn net.Conn
	for _, target := range targets {
		dialer := net.Dialer{Timeout: 10 * time.Second}
		if conn, err = dialer.DialContext(ctx, "tcp", target.String()); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("nothing answers at port %d of the pod: %w", port, err)
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, stream)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, conn)
	return err
}

// maxExecOutput bounds what ExecSync keeps of each stream, as the message that carries it is bounded.
const maxExecOutput = 4 << 20

// ExecSync runs a command in a container and returns what it puts out. A command that takes longer than the timeout is killed,
// with the code DeadlineExceeded; another exit code than 0 is a CodeExitError.
func (r *Runtime) ExecSync(ctx context.Context, id string, argv []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	c, err := r.running(id)
	if err != nil {
		return nil, nil, err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	out, failed := &limitedBuffer{}, &limitedBuffer{}
	code, err := r.exec(ctx, c, argv, nil, out, failed, false, nil)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, nil, status.Errorf(codes.DeadlineExceeded, "command %q timed out after %s", strings.Join(argv, " "), timeout)
	}
	if err != nil {
		return nil, nil, err
	}
	if code != 0 {
		err = utilexec.CodeExitError{Err: fmt.Errorf("command %q exited with %d: %s", strings.Join(argv, " "), code, failed.Bytes()), Code: code}
	}
	return out.Bytes(), failed.Bytes(), err
}

// limitedBuffer keeps the beginning of what is written. What a command has left in the background may go on writing.
type limitedBuffer struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, _ = b.kept.Write(p[:min(len(p), maxExecOutput-b.kept.Len())])
	return len(p), nil
}

// Bytes is what was written until now.
func (b *limitedBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.kept.Bytes())
}

func (b *limitedBuffer) Close() error { return nil }

// exec runs a command in a container until it ends, or ctx does, and returns its exit code.
func (r *Runtime) exec(ctx context.Context, c *container, argv []string, in io.Reader, out, failed io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) (int, error) {
	if len(argv) == 0 {
		return 0, status.Error(codes.InvalidArgument, "there is no command to run")
	}
	var p *pipes
	var err error
	if tty {
		p, err = newTerminal(in, out, resize)
	} else {
		p, err = newPipes(in, out, failed)
	}
	if err != nil {
		return 0, err
	}
	defer p.close()
	session, err := c.sandbox.shim.Exec(ctx, c.id, c.inside(argv), tty, p.names, p.theirs)
	p.handedOver()
	if err != nil {
		return 0, fmt.Errorf("failed to exec in container %s: %w", c.config.Metadata.Name, err)
	}
	defer session.Close()
	p.copyIn()
	code, err := session.Wait()
	p.drain(2 * time.Second) // what the program left in the background may hold the pipes
	return code, err
}
