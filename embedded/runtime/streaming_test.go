package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/loopback"
)

// stream connects to a streaming address as kubectl does.
func stream(t *testing.T, address string, options remotecommand.StreamOptions) error {
	t.Helper()
	at, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	executor, err := remotecommand.NewSPDYExecutor(&restclient.Config{Host: at.Host}, http.MethodPost, at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return executor.StreamWithContext(ctx, options)
}

func TestExecStreams(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		id := f.start(sh("sleep 600"))
		r, err := f.Exec(testContext, &cri.ExecRequest{ContainerId: id, Cmd: []string{"sh", "-c", "cat; echo err >&2; exit 6"}, Stdin: true, Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		var out, failed bytes.Buffer
		input := strings.Repeat("line of input\n", 20000)
		err = stream(t, r.Url, remotecommand.StreamOptions{Stdin: strings.NewReader(input), Stdout: &out, Stderr: &failed})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 6 || out.String() != input || failed.String() != "err\n" {
			t.Errorf("%v, %d bytes, %q", err, out.Len(), failed.String())
		}
		if err := stream(t, r.Url, remotecommand.StreamOptions{Stdout: io.Discard}); err == nil {
			t.Error("the address was good for a second use")
		}
	})
}

// sizes is a terminal that changes its size once.
type sizes struct {
	queue chan remotecommand.TerminalSize
}

func (s sizes) Next() *remotecommand.TerminalSize {
	size, ok := <-s.queue
	if !ok {
		return nil
	}
	return &size
}

func TestExecInATerminal(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		id := f.start(sh("sleep 600"))
		r, err := f.Exec(testContext, &cri.ExecRequest{ContainerId: id, Cmd: []string{"sh"}, Tty: true, Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		queue := make(chan remotecommand.TerminalSize, 2)
		queue <- remotecommand.TerminalSize{Width: 77, Height: 33}
		in, typed := io.Pipe()
		go func() {
			time.Sleep(300 * time.Millisecond)
			fmt.Fprint(typed, "tty; test -t 0 && echo a-terminal; stty size; exit 8\n")
		}()
		var out bytes.Buffer
		err = stream(t, r.Url, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: sizes{queue}})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 8 {
			t.Error(err)
		}
		for _, want := range []string{"/dev/pts/", "a-terminal\r\n", "33 77"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is not in %q", want, out.String())
			}
		}
	})
}

func TestAttach(t *testing.T) {
	f := open(t, false)
	config := sh("read line; echo got $line; cat; echo end >&2; exit 4")
	config.Stdin, config.StdinOnce = true, true
	id := f.start(config)
	r, err := f.Attach(testContext, &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	var out, failed bytes.Buffer
	if err := stream(t, r.Url, remotecommand.StreamOptions{Stdin: strings.NewReader("first\nsecond\n"), Stdout: &out, Stderr: &failed}); err != nil {
		t.Error(err)
	}
	if out.String() != "got first\nsecond\n" || failed.String() != "end\n" || f.ended(id).ExitCode != 4 {
		t.Errorf("%q %q", out.String(), failed.String())
	}
	lines := strings.SplitAfter(f.log(id), "\n")
	slices.Sort(lines) // the two streams are written independently
	if log := strings.Join(lines, ""); log != "stderr F end\nstdout F got first\nstdout F second\n" {
		t.Error(log)
	}
	if _, err := f.Attach(testContext, &cri.AttachRequest{ContainerId: id, Stdout: true}); err == nil {
		t.Error("attached to a container that has ended")
	}
}

func TestAttachToATerminal(t *testing.T) {
	f := open(t, false)
	config := sh("read line; stty size; echo got $line; exit 2")
	config.Stdin, config.Tty = true, true
	id := f.start(config)
	r, err := f.Attach(testContext, &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Tty: true})
	if err != nil {
		t.Fatal(err)
	}
	queue := make(chan remotecommand.TerminalSize, 1)
	queue <- remotecommand.TerminalSize{Width: 66, Height: 22}
	in, typed := io.Pipe()
	go func() {
		time.Sleep(300 * time.Millisecond)
		fmt.Fprint(typed, "words\n")
	}()
	var out bytes.Buffer
	if err := stream(t, r.Url, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: sizes{queue}}); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "22 66\r\ngot words\r\n") || f.ended(id).ExitCode != 2 {
		t.Errorf("%q", out.String())
	}
}

func TestDetachedClientDoesNotDisturb(t *testing.T) {
	f := open(t, false)
	id := f.start(sh("while :; do echo tick; sleep 0.02; done"))
	r, err := f.Attach(testContext, &cri.AttachRequest{ContainerId: id, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	at, _ := url.Parse(r.Url)
	executor, err := remotecommand.NewSPDYExecutor(&restclient.Config{Host: at.Host}, http.MethodPost, at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	_ = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out})
	if !strings.Contains(out.String(), "tick\ntick\n") {
		t.Errorf("%q", out.String())
	}
	before := len(f.log(id))
	f.until("it goes on", func() bool { return len(f.log(id)) > before+50 })
}

func TestPortForward(t *testing.T) {
	f := open(t, false)
	for _, port := range []int32{80, 8080} {
		pod, podConfig := f.pod(fmt.Sprint("web", port))
		config := sh(fmt.Sprintf("mkdir /tmp/www; cd /tmp/www; echo hello > index.html; exec python3 -m http.server %d --bind 127.0.0.1", port))
		f.startIn(pod, podConfig, config)
		target := netip.AddrPortFrom(loopback.Map(netip.MustParseAddr(f.address(pod))), loopback.Port(uint16(port)))
		f.until("the server listens", func() bool {
			r, err := http.Get("http://" + target.String())
			if err == nil {
				r.Body.Close()
			}
			return err == nil
		})
		r, err := f.PortForward(testContext, &cri.PortForwardRequest{PodSandboxId: pod, Port: []int32{port}})
		if err != nil {
			t.Fatal(err)
		}
		at, _ := url.Parse(r.Url)
		transport, upgrader, err := spdy.RoundTripperFor(&restclient.Config{Host: at.Host})
		if err != nil {
			t.Fatal(err)
		}
		stop, ready := make(chan struct{}), make(chan struct{})
		dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, at)
		forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = forwarder.ForwardPorts() }()
		<-ready
		ports, err := forwarder.GetPorts()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local))
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if string(text) != "hello\n" {
				t.Errorf("%q", text)
			}
		}
		close(stop)
	}
}

func TestStreamingNeedsTheSecret(t *testing.T) {
	f := open(t, false)
	id := f.start(sh("sleep 600"))
	r, err := f.Exec(testContext, &cri.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	at, _ := url.Parse(r.Url)
	parts := strings.Split(at.Path, "/")
	if at.Hostname() != "127.0.0.1" || len(parts) != 4 || len(parts[1]) != 32 {
		t.Fatal(r.Url)
	}
	for _, path := range []string{"/", "/exec/" + parts[3], "/" + strings.Repeat("0", 32) + "/exec/" + parts[3], "/" + parts[1] + "/exec/AAAAAAAA"} {
		answer, err := http.Get("http://" + at.Host + path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
}

// TestOutputIsReadWhileMoreComes has what a command has left in the background go on writing.
func TestOutputIsReadWhileMoreComes(t *testing.T) {
	var kept limitedBuffer
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 400_000 {
				_, _ = kept.Write([]byte("x"))
			}
		})
	}
	for range 100 {
		first := kept.Bytes()
		copied := bytes.Clone(first)
		if _, _ = kept.Write([]byte("x")); !bytes.Equal(first, copied) {
			t.Error("what was read has changed")
		}
	}
	writers.Wait()
	if n := len(kept.Bytes()); n != 3_200_100 {
		t.Errorf("%d of 3,200,100 bytes are kept", n)
	}
}
