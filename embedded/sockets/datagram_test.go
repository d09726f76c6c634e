package sockets

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"
)

// echoServer is a program that answers each datagram with its sender's address.
const echoServer = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 99))
print('ready')
while True:
    data, peer = s.recvfrom(65535)
    s.sendto(b'%s %d' % (peer[0].encode(), len(data)), peer)
`

func TestDatagramsBetweenPodsKeepTheirSource(t *testing.T) {
	need(t, "python3")
	_, out := start(t, pod(10), "python3", "-c", echoServer)
	out.waitFor(t, "ready")
	const open = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); "
	const open6 = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(5); "
	for name, program := range map[string]string{
		"sendto unbound":   open + "s.sendto(b'abc', ('198.19.250.10', 99)); print(s.recv(99).decode())",
		"sendto twice":     open + "[(s.sendto(b'abc', ('198.19.250.10', 99)), print(s.recv(99).decode())) for _ in (1, 2)]",
		"sendto bound":     open + "s.bind(('', 0)); s.sendto(b'abc', ('198.19.250.10', 99)); print(s.recv(99).decode())",
		"sendmsg parts":    open + "s.sendmsg([b'a', b'', b'bc'], [], 0, ('198.19.250.10', 99)); print(s.recv(99).decode())",
		"connect unbound":  open + "s.connect(('198.19.250.10', 99)); s.send(b'abc'); print(s.recv(99).decode())",
		"connect bound":    open + "s.bind(('', 0)); p = s.getsockname()[1]; s.connect(('198.19.250.10', 99)); assert s.getsockname()[1] == p; s.send(b'abc'); print(s.recv(99).decode())",
		"sendto mapped":    open6 + "s.sendto(b'abc', ('::ffff:198.19.250.10', 99)); print(s.recv(99).decode())",
		"connect mapped":   open6 + "s.connect(('::ffff:198.19.250.10', 99)); s.send(b'abc'); print(s.recv(99).decode())",
		"non-blocking":     open + "s.setblocking(False); s.sendto(b'abc', ('198.19.250.10', 99)); s.settimeout(5); print(s.recv(99).decode())",
		"own address":      open + "s.bind(('127.0.0.1', 0)); s.sendto(b'abc', ('198.19.250.10', 99)); print(s.recv(99).decode())",
		"IPv6 only socket": open6 + "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); s.connect(('::ffff:198.19.250.10', 99)); s.send(b'abc'); print(s.recv(99).decode())",
	} {
		want := "127.19.250.11 3\n"
		if name == "sendto twice" {
			want += want
		}
		if got := output(t, pod(11), "python3", "-c", program); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	big := open + "s.sendto(b'x' * 60000, ('198.19.250.10', 99)); print(s.recv(99).decode())"
	if got := output(t, pod(11), "python3", "-c", big); got != "127.19.250.11 60000\n" {
		t.Error("a long one: ", got)
	}
	wrong := open + "\ntry: s.sendto(b'x' * 70000, ('198.19.250.10', 99))\nexcept OSError as e: print(e.strerror)"
	if got := output(t, pod(11), "python3", "-c", wrong); got != "Message too long\n" {
		t.Error("too long a one: ", got)
	}
}

func TestClientSocketTalksToTheOutsideToo(t *testing.T) {
	need(t, "python3")
	outside, err := net.ListenPacket("udp", "127.0.0.77:0") // none of the cluster's addresses
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	peers := make(chan string, 2)
	go func() {
		for {
			_, from, err := outside.ReadFrom(make([]byte, 99))
			if err != nil {
				return
			}
			peers <- from.String()
		}
	}()
	_, out := start(t, pod(10), "python3", "-c", echoServer)
	out.waitFor(t, "ready")
	program := fmt.Sprintf("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.bind(('', 0))\n"+
		"s.sendto(b'abc', ('198.19.250.10', 99)); s.recv(99); s.sendto(b'abc', ('127.0.0.77', %d)); print(s.getsockname()[0])", outside.LocalAddr().(*net.UDPAddr).Port)
	if got := output(t, pod(11), "python3", "-c", program); got != "0.0.0.0\n" {
		t.Error(got)
	}
	if peer := <-peers; !strings.HasPrefix(peer, "127.0.0.1:") {
		t.Error("the outside sees ", peer)
	}
}

func TestProgramsOfTheMachineGetAnswers(t *testing.T) {
	need(t, "python3")
	_, out := start(t, pod(24), "python3", "-c", echoServer)
	out.waitFor(t, "ready")
	for name, local := range map[string]string{"connected": "127.0.0.1:0", "any address": "0.0.0.0:0"} {
		from, err := net.ResolveUDPAddr("udp4", local)
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.ListenUDP("udp4", from)
		if name == "connected" {
			client.Close()
			client, err = net.DialUDP("udp4", from, &net.UDPAddr{IP: net.IPv4(127, 19, 250, 24), Port: 10099})
		}
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_ = client.SetDeadline(time.Now().Add(5 * time.Second))
		if name == "connected" {
			_, err = client.Write([]byte("abc"))
		} else {
			_, err = client.WriteTo([]byte("abc"), &net.UDPAddr{IP: net.IPv4(127, 19, 250, 24), Port: 10099})
		}
		if err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 99)
		n, err := client.Read(answer)
		if err != nil || string(answer[:n]) != "127.0.0.1 3" {
			t.Errorf("%s: %q %v", name, answer[:n], err)
		}
	}
	within := "import socket; a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in 'ab'); a.bind(('127.0.0.1', 7001)); b.bind(('127.0.0.1', 7002))\n" +
		"b.settimeout(5); a.sendto(b'x', ('127.0.0.1', 7002)); print(b.recvfrom(9))"
	if got := output(t, pod(25), "python3", "-c", within); got != "(b'x', ('127.19.250.25', 7001))\n" {
		t.Error("two servers of a pod: ", got)
	}
}

// sendMany sends several datagrams by one sendmmsg and prints what comes back.
func sendMany(targets []string) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		panic(err)
	}
	var messages []ipv4.Message
	for i, target := range targets {
		to, _ := net.ResolveUDPAddr("udp4", target)
		messages = append(messages, ipv4.Message{Buffers: [][]byte{[]byte(strings.Repeat("x", i+1))}, Addr: to})
	}
	packets := ipv4.NewPacketConn(conn)
	n, err := packets.WriteBatch(messages, 0)
	fmt.Println(n, err)
	for i := range n {
		if messages[i].N != i+1 {
			fmt.Println("length", messages[i].N)
		}
		buffer := make([]byte, 99)
		n, _, err := conn.ReadFrom(buffer)
		fmt.Println(string(buffer[:n]), err)
	}
	os.Exit(0)
}

func TestManyMessagesInOneCall(t *testing.T) {
	need(t, "python3")
	_, out := start(t, pod(10), "python3", "-c", echoServer)
	out.waitFor(t, "ready")
	got := output(t, pod(11), "/proc/self/exe", "send-many", "198.19.250.10:99", "198.19.250.10:99", "127.19.250.10:10099")
	if got != "3 <nil>\n127.19.250.11 1 <nil>\n127.19.250.11 2 <nil>\n127.19.250.11 3 <nil>\n" {
		t.Error(got)
	}
}

// nameServer answers A queries for names of a zone with an address, at cluster DNS of the tests' pods.
func nameServer(t *testing.T, zone, address string) {
	t.Helper()
	nameServerAt(t, "127.103.250.10:10053", zone, address)
}

func nameServerAt(t *testing.T, at, zone, address string) {
	t.Helper()
	server, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			var query dnsmessage.Message
			if query.Unpack(buffer[:n]) != nil || len(query.Questions) != 1 {
				continue
			}
			q := query.Questions[0]
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true, RecursionAvailable: true}, Questions: query.Questions}
			if !strings.HasSuffix(q.Name.String(), zone) {
				answer.RCode = dnsmessage.RCodeNameError
			} else if q.Type == dnsmessage.TypeA {
				answer.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5},
					Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(address).To4())},
				}}
			}
			packed, _ := answer.Pack()
			_, _ = server.WriteTo(packed, from)
		}
	}()
}

func TestResolvers(t *testing.T) {
	need(t, "python3")
	nameServer(t, ".example.test.", "198.19.250.77")
	glibc := "import socket; print(socket.getaddrinfo('web.example.test', 80, socket.AF_UNSPEC, socket.SOCK_STREAM)[0][4][0])"
	if got := output(t, pod(12), "python3", "-c", glibc); got != "198.19.250.77\n" {
		t.Error("glibc: ", got)
	}
	if got := output(t, pod(12), "/proc/self/exe", "look-up", "web.example.test"); got != "[198.19.250.77] <nil>\n" {
		t.Error("Go: ", got)
	}
	if installed("node") {
		// c-ares wants answers from the address it has asked: pods have a resolv.conf that names cluster DNS.
		program := "const dns = require('dns'); dns.setServers(['127.103.250.10']); dns.resolve4('web.example.test', (e, a) => console.log(e || a[0]))"
		if got := output(t, pod(12), "node", "-e", program); got != "198.19.250.77\n" {
			t.Error("c-ares: ", got)
		}
	}
}
