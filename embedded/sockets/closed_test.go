package sockets

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// These are the ways by which a program could come to listen on addresses of the machine.

func TestNothingListensBeyondThePod(t *testing.T) {
	need(t, "python3")
	const open = "import ctypes, os, socket, threading, time\n" +
		"libc = ctypes.CDLL(None, use_errno=True)\n" +
		"def tell(s):\n  try: s.listen(); print(s.getsockname()[0])\n  except OSError as e: print(e.strerror)\n"
	const direct = "s = socket.socket()\nraw = (%d).to_bytes(2, 'little') + (8099).to_bytes(2, 'big') + bytes(12)\n" +
		"if libc.bind(s.fileno(), raw, 16): print(os.strerror(ctypes.get_errno()))\nelse: tell(s)"
	for name, c := range map[string]struct{ program, want string }{
		"listen without bind":            {"tell(socket.socket())", "127.19.250.21\n"},
		"the same for IPv6":              {"tell(socket.socket(socket.AF_INET6))", "::ffff:127.19.250.21\n"},
		"bind without a family":          {fmt.Sprintf(direct, 0), "127.19.250.21\n"},
		"bind any":                       {fmt.Sprintf(direct, 2), "127.19.250.21\n"},
		"listen after the first connect": {"s = socket.socket()\ntry: s.connect(('127.0.0.1', 9))\nexcept OSError: tell(s)", "127.19.250.21\n"},
		"a port of the kernel's choice":  {"s = socket.socket(); s.bind(('', 0)); tell(s)", "127.19.250.21\n"},
		"a socket that was meant to connect outside": {
			"s = socket.socket(); s.bind(('', 0))\ntry: s.connect(('127.0.0.78', 9))\nexcept OSError: tell(s)", "Cannot assign requested address\n",
		},
		"a socket pair": {"a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))", "b'x'\n"},
		"a Unix socket": {"s = socket.socket(socket.AF_UNIX); s.bind(b'\\0' + os.urandom(8).hex().encode()); s.listen(); print('fine')", "fine\n"},
	} {
		if got := output(t, pod(21), "python3", "-c", open+c.program); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := output(t, pod(21), "python3", "-c", open+"s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); tell(s)"); got != "::1\n" && got != "::ffff:127.19.250.21\n" {
		t.Errorf("IPv6 only: %q", got)
	}
	// A program whose memory we may not read cannot be helped; it must not get the machine's addresses instead.
	hidden := open + "libc.prctl(4, 0, 0, 0, 0)\ns = socket.socket()\ntry: s.bind(('', 8098)); tell(s)\nexcept OSError as e: print('refused')"
	if got := output(t, pod(21), "python3", "-c", hidden); got != "refused\n" && got != "127.19.250.21\n" {
		t.Errorf("a program that hides its memory: %q", got)
	}
}

func TestPodsCannotBindTheMachinesAddresses(t *testing.T) {
	need(t, "python3")
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		ip := a.(*net.IPNet).IP
		if ip.IsLoopback() || ip.To4() == nil {
			continue
		}
		program := fmt.Sprintf("import socket\ntry: socket.socket().bind(('%s', 0)); print('bound')\nexcept OSError as e: print(e.strerror)", ip)
		if got := output(t, pod(21), "python3", "-c", program); got != "Cannot assign requested address\n" {
			t.Errorf("%s: %s", ip, got)
		}
	}
}

func TestBindAfterTheFirstThreadHasEnded(t *testing.T) {
	need(t, "python3")
	program := `
import ctypes, os, platform, socket, threading, time
def later():
    while open(f"/proc/{os.getpid()}/stat").read().split()[2] != "Z":
        time.sleep(0.01)
    s = socket.socket()
    try:
        s.bind(("", 8080)); s.listen(); print(s.getsockname(), flush=True)
    except OSError as e:
        print(e, flush=True)
    os._exit(0)
threading.Thread(target=later).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)  # exit, of this thread only
`
	if got := output(t, pod(22), "python3", "-c", program); got != "('127.19.250.22', 8080)\n" {
		t.Error(got)
	}
}

// TestAnyPortThenOutside stands for every program that binds port 0 before it connects: the address must be one that leads out.
func TestAnyPortThenOutside(t *testing.T) {
	need(t, "python3")
	outside, err := net.Listen("tcp", "127.0.0.79:0") // none of the cluster's addresses
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	peers := make(chan string, 10)
	go func() {
		for {
			c, err := outside.Accept()
			if err != nil {
				return
			}
			peers <- c.RemoteAddr().String()
			c.Close()
		}
	}()
	port := outside.Addr().(*net.TCPAddr).Port
	for name, program := range map[string]string{
		"blocking":     "s = socket.socket(); s.bind(('', 0)); s.connect(('127.0.0.79', %d))",
		"with a limit": "s = socket.create_connection(('127.0.0.79', %d), 5, ('', 0))",
		"IPv6":         "s = socket.socket(socket.AF_INET6); s.bind(('::', 0)); s.connect(('::ffff:127.0.0.79', %d))",
		"non-blocking": "s = socket.socket(); s.setblocking(False); s.bind(('', 0)); s.connect_ex(('127.0.0.79', %d)); s.settimeout(5); s.recv(1)",
		"inner first":  "s = socket.socket(); s.bind(('', 0))\ntry: s.connect(('127.0.0.1', 9))\nexcept OSError: s.connect(('127.0.0.79', %d))",
	} {
		if out := output(t, pod(23), "python3", "-c", "import socket\n"+fmt.Sprintf(program, port)); out != "" {
			t.Errorf("%s: %s", name, out)
			continue
		}
		if peer := <-peers; !strings.HasPrefix(peer, "127.0.0.1:") {
			t.Errorf("%s: the outside sees %s", name, peer)
		}
	}
}
