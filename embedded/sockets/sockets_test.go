package sockets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary stand in for shim, which Start re-executes.
func TestMain(m *testing.M) {
	EnterRootfs = func(raw json.RawMessage) error {
		var plan struct{ Chdir string }
		if json.Unmarshal(raw, &plan) != nil {
			return errors.New("rootfs says no")
		}
		return os.Chdir(plan.Chdir)
	}
	if Dispatch(os.Args) {
		os.Exit(0)
	}
	if len(os.Args) > 1 {
		helper(os.Args[1], os.Args[2:])
	}
	os.Exit(m.Run())
}

// helper are the programs, static Go ones, that the tests run under filters.
func helper(name string, args []string) {
	switch name {
	case "connect-loop":
		connectLoop(args[0], args[1], args[2])
	case "send-many":
		sendMany(args)
	case "look-up":
		addresses, err := net.LookupHost(args[0])
		fmt.Println(addresses, err)
		os.Exit(0)
	case "nested":
		fmt.Println(Supported())
		os.Exit(0)
	case "run-client":
		slot, err := strconv.Atoi(os.Getenv("TEST_SLOT"))
		if err != nil {
			slot = 7
		}
		code, err := RunClient(slot, "", os.Getenv("TEST_SERVICES"), args)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	case "serve-http":
		fmt.Println(http.ListenAndServe(args[0], http.NotFoundHandler()))
		os.Exit(1)
	case "get-http":
		response, err := http.Get(args[0])
		if err == nil {
			fmt.Println(response.StatusCode)
		} else {
			fmt.Println(err)
		}
		os.Exit(0)
	}
}

// lockedBuffer collects what a program prints while the test looks at it.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *lockedBuffer) waitFor(t *testing.T, word string) {
	t.Helper()
	for range 100 {
		if strings.Contains(b.String(), word) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%q was not printed: %s", word, b.String())
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip("this sandbox has no seccomp user notification: ", err)
	}
	for _, p := range programs {
		if !installed(p) {
			t.Skip(p, " is not installed")
		}
	}
}

func pod(last byte) *Supervisor {
	return New(Policy{
		Kind: Pod, Address: netip.AddrFrom4([4]byte{127, 19, 250, last}),
		DNS: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 103, 250, 10}), 53),
	})
}

// start runs a program under a supervisor until the test ends; its output is in the buffer.
func start(t *testing.T, s *Supervisor, argv ...string) (*exec.Cmd, *lockedBuffer) {
	t.Helper()
	cmd, out, input := startWithInput(t, s, argv...)
	input.Close()
	return cmd, out
}

func startWithInput(t *testing.T, s *Supervisor, argv ...string) (*exec.Cmd, *lockedBuffer, *os.File) {
	t.Helper()
	var out lockedBuffer
	cmd := exec.Command("true")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writer.Close() })
	defer reader.Close()
	cmd.Stdin = reader
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.Start(cmd, Spec{Argv: argv, Env: append(os.Environ(), "PYTHONUNBUFFERED=1")}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
	})
	return cmd, &out, writer
}

// output is what a program under a supervisor prints until it ends.
func output(t *testing.T, s *Supervisor, argv ...string) string {
	t.Helper()
	return outputOf(t, s, Spec{Argv: argv, Env: os.Environ()})
}

func outputOf(t *testing.T, s *Supervisor, spec Spec) string {
	t.Helper()
	var out lockedBuffer
	cmd := exec.Command("true")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.Start(cmd, spec); err != nil {
		t.Error(err)
		return ""
	}
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
	return out.String()
}

// listening waits until something accepts at an address of this host.
func listening(t *testing.T, address string) {
	t.Helper()
	for range 100 {
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			c.Close()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("nothing listens at ", address)
}

func TestUnmodifiedServersSharePorts(t *testing.T) {
	need(t, "python3", "curl")
	for last := byte(1); last <= 2; last++ {
		start(t, pod(last), "python3", "-m", "http.server", "80")
		listening(t, fmt.Sprintf("127.19.250.%d:10080", last))
	}
	if got := output(t, pod(9), "/proc/self/exe", "get-http", "http://198.19.250.1/"); got != "200\n" {
		t.Error("a Go client: ", got)
	}
	for _, url := range []string{"http://198.19.250.1/", "http://198.19.250.2:80/"} {
		if got := output(t, pod(9), "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url); got != "200" {
			t.Errorf("%s: %s", url, got)
		}
	}
	if got := output(t, pod(1), "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://localhost/"); got != "200" {
		t.Error("own localhost: ", got)
	}
	if got := output(t, pod(9), "curl", "-sS", "--max-time", "5", "http://localhost/"); !strings.Contains(got, "onnect") {
		t.Error("another pod's localhost is reachable: ", got)
	}
}

func TestServersInOtherLanguages(t *testing.T) {
	need(t, "curl")
	get := func(last byte, url string) string {
		return output(t, pod(last), "curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{remote_port}", url)
	}
	start(t, pod(16), "/proc/self/exe", "serve-http", ":80") // Go listens on [::]
	listening(t, "127.19.250.16:10080")
	if got := get(9, "http://198.19.250.16/"); !strings.HasPrefix(got, "404") {
		t.Error("Go: ", got)
	}
	for _, own := range []string{"http://localhost/", "http://127.0.0.1/", "http://[::1]/", "http://0.0.0.0/"} {
		if got := get(16, own); !strings.HasPrefix(got, "404") {
			t.Errorf("own %s: %s", own, got)
		}
	}
	if !installed("java") {
		t.Log("java is not installed")
		return
	}
	source := filepath.Join(t.TempDir(), "Server.java")
	text := "import java.net.*; class Server { public static void main(String[] a) throws Exception {\n" +
		"var s = com.sun.net.httpserver.HttpServer.create(new InetSocketAddress(80), 0); s.createContext(\"/\", x -> { x.sendResponseHeaders(204, -1); x.close(); }); s.start();\n" +
		"System.out.println(((HttpURLConnection) new URL(\"http://localhost/\").openConnection()).getResponseCode()); } }"
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, out := start(t, pod(17), "java", "-XX:TieredStopAtLevel=1", source)
	listening(t, "127.19.250.17:10080")
	out.waitFor(t, "204")
	if got := get(9, "http://198.19.250.17/"); !strings.HasPrefix(got, "204") {
		t.Error("Java: ", got)
	}
}

func TestPortsAreTakenOncePerPod(t *testing.T) {
	need(t, "python3")
	program := "import socket\na = socket.create_server(('', 8085))\ntry: socket.socket().bind(('127.0.0.1', 8085))\nexcept OSError as e: print(e.strerror)\n" +
		"try: socket.socket().bind(('198.19.250.99', 8085))\nexcept OSError as e: print(e.strerror)\n" +
		"try: socket.create_connection(('localhost', 8086))\nexcept OSError as e: print(e.strerror)"
	want := "Address already in use\nCannot assign requested address\nConnection refused\n"
	if got := output(t, pod(18), "python3", "-c", program); got != want {
		t.Error(got)
	}
}

func TestPeersSeeThePodsAddress(t *testing.T) {
	need(t, "python3")
	listener, err := net.Listen("tcp", "127.19.250.20:18080")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	peers := make(chan string, 2)
	go func() {
		for range 2 {
			if c, err := listener.Accept(); err == nil {
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				peers <- host
				c.Close()
			}
		}
	}()
	for _, program := range []string{
		"import socket; socket.create_connection(('198.19.250.20', 18080), 5)",
		"import socket; s = socket.socket(socket.AF_INET6); s.connect(('::ffff:198.19.250.20', 18080))",
	} {
		if out := output(t, pod(3), "python3", "-c", program); out != "" {
			t.Fatal(out)
		}
		select {
		case peer := <-peers:
			if peer != "127.19.250.3" {
				t.Error("peer is ", peer)
			}
		case <-time.After(time.Minute):
			t.Fatal("no connection")
		}
	}
}

func TestNodeAndSecondListenerForIPv6(t *testing.T) {
	need(t, "node", "python3")
	start(t, pod(4), "node", "-e", "require('http').createServer((q, r) => r.end('hi')).listen(8080)")
	listening(t, "127.19.250.4:8080")
	both := "import socket, time\n" +
		"a = socket.create_server(('0.0.0.0', 80))\n" +
		"b = socket.socket(socket.AF_INET6); b.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); b.bind(('::', 80)); b.listen()\n" +
		"print('both'); time.sleep(60)"
	start(t, pod(5), "python3", "-c", both)
	listening(t, "127.19.250.5:10080")
}

// acceptAll serves a TCP address of the host until the test ends, by closing whatever comes.
func acceptAll(t *testing.T, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// settled waits until descriptors and goroutines are as few as before.
func settled(t *testing.T, files, routines int) {
	t.Helper()
	for range 600 {
		if descriptors(t) <= files && runtime.NumGoroutine() <= routines {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("%d descriptors, %d before; %d goroutines, %d before\n%s", descriptors(t), files, runtime.NumGoroutine(), routines, stacks[:runtime.Stack(stacks, true)])
}

func TestManyConnectionsLeakNothing(t *testing.T) {
	need(t, "python3")
	acceptAll(t, "127.19.250.30:18081")
	files, routines := descriptors(t), runtime.NumGoroutine()
	program := "import os, socket, threading\n" +
		"def go():\n  for i in range(50):\n    socket.create_connection(('198.19.250.30', 18081), 5).close(); socket.create_connection(('198.19.250.30', 18081)).close()\n" +
		"def all():\n  ts = [threading.Thread(target=go) for _ in range(8)]\n  [t.start() for t in ts]; [t.join() for t in ts]\n" +
		"children = []\n" +
		"for _ in range(3):\n  pid = os.fork()\n  if not pid: all(); os._exit(0)\n  children.append(pid)\n" +
		"all(); print([os.waitpid(p, 0)[1] for p in children])"
	if out := output(t, pod(8), "python3", "-c", program); out != "[0, 0, 0]\n" {
		t.Fatal(out)
	}
	settled(t, files, routines)
}

// fullServer is a server whose queue of connections is full.
func fullServer(t *testing.T) (fd, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 19, 250, 31}}), unix.Listen(fd, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	name, _ := unix.Getsockname(fd)
	port = name.(*unix.SockaddrInet4).Port
	filler, err := net.Dial("tcp", fmt.Sprint("127.19.250.31:", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { filler.Close() })
	return fd, port
}

func TestBlockedConnectHoldsNobodyUp(t *testing.T) {
	need(t, "python3")
	_, port := fullServer(t)
	acceptAll(t, "127.19.250.31:18083")
	files, routines := descriptors(t), runtime.NumGoroutine()
	program := fmt.Sprintf("import socket, threading, time\nfull = [threading.Thread(target=socket.create_connection, args=(('198.19.250.31', %d),), daemon=True) for _ in range(5)]\n", port) +
		"[t.start() for t in full]; time.sleep(0.3); begin = time.time()\n" +
		"[socket.create_connection(('198.19.250.31', 18083)).close() for _ in range(100)]\n" +
		"print(time.time() - begin < 1, all(t.is_alive() for t in full))\n" +
		"time.sleep(60)"
	cmd, out := start(t, pod(14), "python3", "-u", "-c", program)
	out.waitFor(t, "\n")
	if out.String() != "True True\n" {
		t.Error(out.String())
	}
	_ = syscall.Kill(cmd.Process.Pid, syscall.SIGKILL)
	settled(t, files, routines+1) // the one that waits in start
}

func TestBlockedConnectGoesOnWhenThereIsRoom(t *testing.T) {
	need(t, "python3")
	fd, port := fullServer(t)
	_, out := start(t, pod(15), "python3", "-u", "-c", fmt.Sprintf("import socket; print('go'); s = socket.create_connection(('198.19.250.31', %d)); s.send(b'x'); print('made', s.gettimeout())", port))
	out.waitFor(t, "go")
	time.Sleep(200 * time.Millisecond)
	for range 2 {
		if c, _, err := unix.Accept(fd); err == nil {
			unix.Close(c)
		}
	}
	out.waitFor(t, "made None")
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
