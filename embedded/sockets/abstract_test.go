package sockets

import (
	"net"
	"strings"
	"testing"
)

const abstractServer = `
import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(b'\0labkit-test-app'); s.listen()
print('ready', flush=True)
while True:
    c, _ = s.accept(); c.sendall(sys.argv[1].encode()); c.close()
`

func TestAbstractSocketsAreThePods(t *testing.T) {
	need(t, "python3")
	const ask = "import socket; s = socket.socket(socket.AF_UNIX)\ntry: s.connect(b'\\0labkit-test-app'); print(s.recv(99).decode())\nexcept OSError as e: print(e.strerror)"
	for last, name := range map[byte]string{61: "first", 62: "second"} {
		_, out := start(t, pod(last), "python3", "-c", abstractServer, name)
		out.waitFor(t, "ready")
	}
	for last, want := range map[byte]string{61: "first\n", 62: "second\n", 63: "Connection refused\n"} {
		if got := output(t, pod(last), "python3", "-c", ask); got != want {
			t.Errorf("pod %d: %s", last, got)
		}
	}
	if c, err := net.Dial("unix", "@labkit-test-app"); err == nil {
		c.Close()
		t.Error("the machine's programs see a pod's abstract socket")
	}
	if got := output(t, New(Policy{Kind: Host}), "python3", "-c", ask); got != "Connection refused\n" {
		t.Error("a host's program: ", got)
	}
}

func TestAbstractSocketsOfAllKinds(t *testing.T) {
	need(t, "python3")
	const open = "import array, os, socket, tempfile\nU, D, P = socket.AF_UNIX, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET\n"
	for name, program := range map[string]string{
		"datagrams and answers": "a = socket.socket(U, D); a.bind(b'\\0aa'); b = socket.socket(U, D); b.bind(b'\\0bb')\n" +
			"b.sendto(b'q', b'\\0aa'); d, peer = a.recvfrom(9); a.sendto(d + b'!', peer); assert b.recv(9) == b'q!'",
		"connected datagrams": "a = socket.socket(U, D); a.bind(b'\\0aa'); b = socket.socket(U, D); b.connect(b'\\0aa'); b.send(b'x'); assert a.recv(9) == b'x'",
		"packets":             "a = socket.socket(U, P); a.bind(b'\\0aa'); a.listen(); b = socket.socket(U, P); b.connect(b'\\0aa'); b.send(b'x'); assert a.accept()[0].recv(9) == b'x'",
		"the name that the kernel tells": "a = socket.socket(U); a.bind(b'\\0aa'); a.listen(); n = a.getsockname(); socket.socket(U).connect(n)\n" +
			"try: socket.socket(U).bind(n); assert False\nexcept OSError as e: assert e.strerror == 'Address already in use', e",
		"a name of the kernel's choice": "a = socket.socket(U, D); a.bind(''); b = socket.socket(U, D); b.sendto(b'x', a.getsockname()); assert a.recv(9) == b'x'",
		"long names": "n = b'\\0' + b'n' * 107; a = socket.socket(U); a.bind(n); a.listen(); socket.socket(U).connect(n)\n" +
			"b = socket.socket(U)\ntry: b.connect(n[:-1]); assert False\nexcept ConnectionRefusedError: pass",
		"names with zeros": "a = socket.socket(U); a.bind(b'\\0x\\0y\\0'); a.listen(); socket.socket(U).connect(b'\\0x\\0y\\0')\n" +
			"try: socket.socket(U).connect(b'\\0x\\0y'); assert False\nexcept ConnectionRefusedError: pass",
		"descriptors": "a = socket.socket(U, D); a.bind(b'\\0aa'); b = socket.socket(U, D); f = tempfile.TemporaryFile(); f.write(b'text'); f.flush()\n" +
			"b.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f.fileno()]))], 0, b'\\0aa')\n" +
			"d, fds, _, _ = socket.recv_fds(a, 9, 1); assert os.pread(fds[0], 9, 0) == b'text'",
		"paths": "d = tempfile.mkdtemp(); a = socket.socket(U); a.bind(d + '/s'); a.listen(); socket.socket(U).connect(d + '/s'); assert a.getsockname() == d + '/s'",
		"a full queue": "import threading, time\na = socket.socket(U); a.bind(b'\\0full'); a.listen(0); socket.socket(U).connect(b'\\0full')\n" +
			"made = []\nt = threading.Thread(target=lambda: made.append(socket.socket(U).connect(b'\\0full'))); t.start(); time.sleep(0.2); assert not made\n" +
			"a.accept(); t.join(5); assert made",
	} {
		if got := output(t, pod(64), "python3", "-c", open+program+"\nprint('fine')"); got != "fine\n" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestNamesThatArePrefixedStay(t *testing.T) {
	p := pod(65).policy
	once := p.own("app")
	if twice := p.own(strings.TrimPrefix(once.Name, "@")); *twice != *once || !strings.Contains(once.Name, "127.19.250.65/app") {
		t.Errorf("%+v %+v", once, twice)
	}
}
