package sockets

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary stand in for shim, which Start re-executes.
func TestMain(m *testing.M) {
	if Dispatch(os.Args) {
		os.Exit(0)
	}
	if len(os.Args) > 4 && os.Args[1] == "connect-loop" {
		connectLoop(os.Args[2], os.Args[3], os.Args[4])
	}
	os.Exit(m.Run())
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip("this sandbox has no seccomp user notification: ", err)
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
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
func start(t *testing.T, s *Supervisor, argv ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("true")
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
	return cmd, &out
}

// output is what a program under a supervisor prints until it ends.
func output(t *testing.T, s *Supervisor, argv ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("true")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.Start(cmd, Spec{Argv: argv, Env: os.Environ()}); err != nil {
		t.Fatal(err)
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
		case <-time.After(5 * time.Second):
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

func TestAddressedDatagramsAndResolver(t *testing.T) {
	need(t, "python3")
	server, err := net.ListenPacket("udp", "127.103.250.10:10053")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() { // echoes
		buffer := make([]byte, 2048)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buffer[:n], from)
		}
	}()
	for _, program := range []string{
		"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.sendto(b'abc', ('192.0.2.1', 53)); print(s.recvfrom(9)[0].decode())",
		"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.sendmsg([b'a', b'bc'], [], 0, ('127.0.0.53', 53)); print(s.recvfrom(9)[0].decode())",
		"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(('192.0.2.1', 53)); s.send(b'abc'); print(s.recv(9).decode())",
	} {
		if out := output(t, pod(6), "python3", "-c", program); out != "abc\n" {
			t.Errorf("%s: %s", program, out)
		}
	}
}

func TestFailuresToStartAreTold(t *testing.T) {
	need(t)
	for _, c := range []struct {
		argv []string
		code int
	}{{[]string{"no-such-program"}, 127}, {[]string{"/etc/hostname"}, 126}, {[]string{"/no/such"}, 127}} {
		err := pod(7).Start(exec.Command("true"), Spec{Argv: c.argv, Env: os.Environ()})
		var failure *StartError
		if !errors.As(err, &failure) || failure.Code != c.code || !strings.Contains(failure.Message, c.argv[0]) {
			t.Errorf("%v: %v", c.argv, err)
		}
	}
}

func TestManyConnectionsLeakNothing(t *testing.T) {
	need(t, "python3")
	listener, err := net.Listen("tcp", "127.19.250.30:18081")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	before := descriptors(t)
	program := "import socket, threading\n" +
		"def go():\n  for i in range(100):\n    socket.create_connection(('198.19.250.30', 18081), 5).close()\n" +
		"ts = [threading.Thread(target=go) for _ in range(8)]\n[t.start() for t in ts]; [t.join() for t in ts]; print('done')"
	if out := output(t, pod(8), "python3", "-c", program); out != "done\n" {
		t.Fatal(out)
	}
	for range 50 {
		if descriptors(t) <= before+9 { // one cached handle for each of its threads
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%d descriptors, %d before", descriptors(t), before)
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
