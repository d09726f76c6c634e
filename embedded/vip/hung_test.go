package vip

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// hungBackend takes connections and never reads from them; the test gets them.
func hungBackend(t *testing.T, address string) (Backend, <-chan net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan net.Conn, 10000)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			taken <- conn
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		for len(taken) > 0 {
			(<-taken).Close()
		}
	})
	return Backend{addr(address)}, taken
}

// lockedBuffer is a log that is read while it is written.
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

func TestHungBackendStopsNoOtherService(t *testing.T) {
	t.Parallel()
	const full, other = "127.103.250.8:18080", "127.103.250.9:18080"
	grantedConnections()
	var log lockedBuffer
	const limit, clients = 600, 2600
	p := NewProxy(limit, func(netip.Addr) string { return "" }, slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(p.Close)
	hung, _ := hungBackend(t, "127.19.251.70:8080")
	well, _ := backend(t, "127.19.251.71:8080")
	rules := map[Listen]Rule{
		{"tcp", addr(full)}:  {Port: "t/hung:http", Backends: []Backend{hung}},
		{"tcp", addr(other)}: {Port: "t/well:http", Backends: []Backend{well}},
	}
	if failed := p.Apply(rules); len(failed) > 0 {
		t.Fatal(failed)
	}
	ask := func() {
		t.Helper()
		conn, err := net.DialTimeout("tcp4", other, 10*time.Second)
		if err != nil {
			t.Fatalf("another Service: %v", err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		if answer, err := io.ReadAll(conn); err != nil || !strings.Contains(string(answer), "127.19.251.71") {
			t.Fatalf("another Service answered %q, %v", answer, err)
		}
	}
	var held []net.Conn
	for i := range clients {
		dialer := net.Dialer{Timeout: 10 * time.Second}
		if conn, err := dialer.Dial("tcp4", full); err == nil {
			io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
			held = append(held, conn)
		}
		if i%100 == 0 {
			ask()
		}
	}
	eventually(t, "clients of the hung one are refused", func() bool {
		return testutil.ToFloat64(p.stats.refused.WithLabelValues("t/hung:http")) > 0
	})
	ask()
	if n := testutil.ToFloat64(p.stats.refused.WithLabelValues("t/well:http")); n != 0 {
		t.Errorf("%g clients of another Service were refused", n)
	}
	lines := strings.Count(log.String(), "\n")
	if !strings.Contains(log.String(), "t/hung:http") || lines > clients/10 {
		t.Errorf("%d lines about it: %s", lines, log.String()[:min(500, len(log.String()))])
	}
	for _, conn := range held {
		conn.Close()
	}
	eventually(t, "the places are free after the clients have gone", func() bool { return p.budget.held() == 0 })
	ask()
}

func TestGoneClientGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	const front = "127.103.250.3:18080"
	p := newTestProxy(t)
	hung, taken := hungBackend(t, "127.19.251.72:8080")
	applyAt(t, p, front, Rule{Backends: []Backend{hung}})
	reset := func(conn *net.TCPConn) { conn.SetLinger(0); conn.Close() }
	ways := map[string]func(*net.TCPConn){
		"closes":                  func(conn *net.TCPConn) { conn.Close() },
		"resets":                  reset,
		"closes after half":       func(conn *net.TCPConn) { conn.CloseWrite(); time.Sleep(100 * time.Millisecond); conn.Close() },
		"resets after half":       func(conn *net.TCPConn) { conn.CloseWrite(); time.Sleep(100 * time.Millisecond); reset(conn) },
		"resets when all is full": func(conn *net.TCPConn) { fill(conn); reset(conn) },
	}
	clients := map[string]*net.TCPConn{}
	for name := range ways {
		conn, err := net.Dial("tcp4", front)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		defer (<-taken).Close()
		clients[name] = conn.(*net.TCPConn)
	}
	if held := p.budget.held(); held != len(ways) {
		t.Fatalf("%d places are taken by %d clients", held, len(ways))
	}
	for name, leave := range ways {
		leave(clients[name])
	}
	eventually(t, "all places are free", func() bool { return p.budget.held() == 0 })
}

// fill writes until nobody takes any more.
func fill(conn *net.TCPConn) {
	for {
		conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := conn.Write(make([]byte, 1<<20)); err != nil {
			return
		}
	}
}

func TestGoneEndpointGivesThePlaceBack(t *testing.T) {
	t.Parallel()
	const front = "127.103.250.4:18080"
	p := newTestProxy(t)
	b, taken := hungBackend(t, "127.19.251.73:8080")
	applyAt(t, p, front, Rule{Backends: []Backend{b}})
	conn, err := net.Dial("tcp4", front)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server := <-taken
	answer := make([]byte, 8<<20)
	go func() {
		server.Write(answer)
		server.Close()
	}()
	eventually(t, "the place is free although the client keeps its side open", func() bool {
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, _ := conn.Read(answer)
		answer = answer[n:]
		return p.budget.held() == 0
	})
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if rest, err := io.ReadAll(conn); err != nil || len(rest) != len(answer) {
		t.Errorf("%d bytes of the answer were missing at the end, %d came: %v", len(answer), len(rest), err)
	}
}

// TestWhatAClientSentBeforeItLeftArrives: a client that sends and goes does not wait for a slow endpoint.
func TestWhatAClientSentBeforeItLeftArrives(t *testing.T) {
	t.Parallel()
	const front = "127.103.250.5:18080"
	p := newTestProxy(t)
	slow, taken := hungBackend(t, "127.19.251.74:8080")
	applyAt(t, p, front, Rule{Backends: []Backend{slow}})
	conn, err := net.Dial("tcp4", front)
	if err != nil {
		t.Fatal(err)
	}
	const size = 200_000
	conn.Write(make([]byte, size))
	conn.Close()
	server := <-taken
	defer server.Close()
	eventually(t, "its place is free", func() bool { return p.budget.held() == 0 })
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if text, err := io.ReadAll(server); err != nil || len(text) != size {
		t.Errorf("%d of %d bytes arrived: %v", len(text), size, err)
	}
}

func TestHalfClosedClientIsServedForAsLongAsItListens(t *testing.T) {
	t.Parallel()
	const front = "127.103.250.6:18080"
	p := newTestProxy(t)
	slow, taken := hungBackend(t, "127.19.251.75:8080")
	applyAt(t, p, front, Rule{Backends: []Backend{slow}})
	conn, err := net.Dial("tcp4", front)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.TCPConn).CloseWrite()
	server := <-taken
	time.Sleep((hasty.Idle + hasty.Interval*time.Duration(hasty.Count)) * 2)
	io.WriteString(server, "late")
	server.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if answer, err := io.ReadAll(conn); err != nil || string(answer) != "late" {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestResetReachesTheEndpoint(t *testing.T) {
	t.Parallel()
	const front = "127.103.250.7:18080"
	p := newTestProxy(t)
	b, taken := hungBackend(t, "127.19.251.76:8080")
	applyAt(t, p, front, Rule{Backends: []Backend{b}})
	conn, err := net.Dial("tcp4", front)
	if err != nil {
		t.Fatal(err)
	}
	server := <-taken
	defer server.Close()
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := server.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), syscall.ECONNRESET.Error()) {
		t.Errorf("the endpoint sees %v, want a reset", err)
	}
}
