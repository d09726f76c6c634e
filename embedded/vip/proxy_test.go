package vip

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// The tests use addresses of the last slot: no cluster of this machine is likely to have it.
const front = "127.103.250.1:18080"

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func newTestProxy(t *testing.T) *Proxy {
	t.Helper()
	nodes := map[netip.Prefix]string{netip.MustParsePrefix("127.19.251.0/24"): "a", netip.MustParsePrefix("127.19.252.0/24"): "b"}
	p := NewProxy(256, func(a netip.Addr) string {
		for prefix, name := range nodes {
			if prefix.Contains(a) {
				return name
			}
		}
		return ""
	}, slog.New(slog.DiscardHandler))
	t.Cleanup(p.Close)
	return p
}

// apply serves front with the backends; it fails the test when it cannot listen.
func apply(t *testing.T, p *Proxy, rule Rule) {
	t.Helper()
	applyAt(t, p, front, rule)
}

func applyAt(t *testing.T, p *Proxy, address string, rule Rule) {
	t.Helper()
	rule.Port = "test/test:http"
	if failed := p.Apply(map[Listen]Rule{{"tcp", addr(address)}: rule}); len(failed) > 0 {
		t.Fatalf("cannot listen: %v", failed)
	}
}

// backend starts an HTTP server that answers with its own address and the client's.
func backend(t *testing.T, address string) (Backend, *http.Server) {
	t.Helper()
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s %s", address, host)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return Backend{addr(address)}, server
}

// get fetches front on a fresh connection from the source address given ("" is any).
func get(source string) (string, error) {
	d := &net.Dialer{}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
	response, err := client.Get("http://" + front)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func TestConnectionsSpreadEvenly(t *testing.T) {
	p := newTestProxy(t)
	var backends []Backend
	for i := range 4 {
		b, _ := backend(t, fmt.Sprintf("127.19.251.%d:8080", 10+i))
		backends = append(backends, b)
	}
	apply(t, p, Rule{Backends: backends})
	counts := map[string]int{}
	const requests = 1000
	for range requests {
		body, err := get("")
		if err != nil {
			t.Fatal(err)
		}
		counts[body]++
	}
	// A fair choice gives each 250 ± 14; five standard deviations are practically never left.
	for b, n := range counts {
		if n < 180 || n > 320 {
			t.Errorf("%s got %d of %d requests", b, n, requests)
		}
	}
	if len(counts) != 4 {
		t.Errorf("only %d of 4 endpoints were used", len(counts))
	}
}

func TestPodsKeepTheirSourceAddress(t *testing.T) {
	p := newTestProxy(t)
	b, _ := backend(t, "127.19.251.10:8080")
	apply(t, p, Rule{Backends: []Backend{b}})
	if body, err := get("127.19.252.7"); err != nil || body != "127.19.251.10:8080 127.19.252.7" {
		t.Errorf("a pod's request arrived as %q, %v", body, err)
	}
}

func TestNoEndpointRefuses(t *testing.T) {
	p := newTestProxy(t)
	b, _ := backend(t, "127.19.251.10:8080")
	apply(t, p, Rule{Backends: []Backend{b}})
	if _, err := get(""); err != nil {
		t.Fatal(err)
	}
	p.Apply(nil)
	if _, err := get(""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without an endpoint: %v, want connection refused", err)
	}
}

func TestDeadEndpointFailsAsBehindKubeProxy(t *testing.T) {
	p := newTestProxy(t)
	alive, _ := backend(t, "127.19.251.10:8080")
	apply(t, p, Rule{Backends: []Backend{alive, {addr("127.19.251.11:8080")}}})
	failed := 0
	for range 200 {
		if _, err := get(""); err != nil {
			failed++
		}
	}
	if failed < 50 || failed > 150 {
		t.Errorf("%d of 200 requests failed; half of the endpoints are dead", failed)
	}
	if n := testutil.ToFloat64(p.stats.dialErrors); n != float64(failed) {
		t.Errorf("%g dial errors counted, %d requests failed", n, failed)
	}
}

func TestSessionAffinity(t *testing.T) {
	p := newTestProxy(t)
	a, _ := backend(t, "127.19.251.10:8080")
	b, _ := backend(t, "127.19.251.11:8080")
	apply(t, p, Rule{Backends: []Backend{a, b}, Affinity: 400 * time.Millisecond})
	first, err := get("127.19.252.7")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if again, err := get("127.19.252.7"); err != nil || again != first {
			t.Fatalf("the client was moved from %q to %q (%v)", first, again, err)
		}
	}
	others := map[string]bool{}
	for i := range 40 {
		body, err := get(fmt.Sprintf("127.19.252.%d", 10+i))
		if err != nil {
			t.Fatal(err)
		}
		others[body[:18]] = true
	}
	if len(others) != 2 {
		t.Errorf("40 clients all got the same endpoint: %v", others)
	}
	moved := false
	for range 20 { // after the timeout the choice is free again
		time.Sleep(450 * time.Millisecond)
		if again, _ := get("127.19.252.7"); again != first {
			moved = true
			break
		}
	}
	if !moved {
		t.Error("the affinity outlived its timeout 20 times")
	}
}

func TestClientLocalUsesTheClientsNode(t *testing.T) {
	p := newTestProxy(t)
	a, _ := backend(t, "127.19.251.10:8080")
	b, _ := backend(t, "127.19.252.10:8080")
	apply(t, p, Rule{OnNode: map[string][]Backend{"a": {a}, "b": {b}}})
	for range 20 {
		if body, err := get("127.19.252.7"); err != nil || body[:18] != "127.19.252.10:8080" {
			t.Fatalf("a client on node b got %q, %v", body, err)
		}
	}
	if _, err := get(""); err == nil {
		t.Error("a client on no node was served although the policy is Local")
	}
}

func TestOpenConnectionsOutliveTheirEndpoint(t *testing.T) {
	p := newTestProxy(t)
	old, _ := backend(t, "127.19.251.10:8080")
	apply(t, p, Rule{Backends: []Backend{old}})
	conn, err := net.Dial("tcp4", front)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	request := func() (string, error) {
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	if _, err := request(); err != nil {
		t.Fatal(err)
	}
	next, _ := backend(t, "127.19.251.11:8080")
	apply(t, p, Rule{Backends: []Backend{next}})
	if body, err := request(); err != nil || body[:18] != "127.19.251.10:8080" {
		t.Errorf("the open connection gave %q, %v", body, err)
	}
	if body, err := get(""); err != nil || body[:18] != "127.19.251.11:8080" {
		t.Errorf("a new connection gave %q, %v", body, err)
	}
	p.Apply(nil)
	if _, err := request(); err != nil {
		t.Errorf("the open connection broke when the Service was deleted: %v", err)
	}
}

// TestRollingUpdateLosesNothing replaces every endpoint under load the way a rolling update does: the new pod becomes
// ready, the old one leaves the ready endpoints, gets its SIGTERM a moment later and finishes what it has.
func TestRollingUpdateLosesNothing(t *testing.T) {
	p := newTestProxy(t)
	var backends []Backend
	var servers []*http.Server
	for i := range 3 {
		b, s := backend(t, fmt.Sprintf("127.19.251.%d:8080", 10+i))
		backends, servers = append(backends, b), append(servers, s)
	}
	apply(t, p, Rule{Backends: backends})
	var served, failed atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	finished := make(chan struct{}, 4)
	for range cap(finished) {
		go func() {
			defer func() { finished <- struct{}{} }()
			for ctx.Err() == nil {
				if _, err := get(""); err != nil {
					failed.Add(1)
					t.Log(err)
				} else {
					served.Add(1)
				}
			}
		}()
	}
	for round := range 12 {
		at := round % 3
		b, s := backend(t, fmt.Sprintf("127.19.251.%d:8080", 20+round))
		leaving := servers[at]
		backends = append([]Backend(nil), backends...)
		backends[at], servers[at] = b, s
		apply(t, p, Rule{Backends: backends})
		time.Sleep(50 * time.Millisecond)
		if err := leaving.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
	stop()
	for range cap(finished) {
		<-finished
	}
	if failed.Load() > 0 || served.Load() < 100 {
		t.Errorf("%d requests failed, %d served", failed.Load(), served.Load())
	}
}

func TestHalfCloseReachesTheEndpoint(t *testing.T) {
	p := newTestProxy(t)
	listener, err := net.Listen("tcp4", "127.19.251.30:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		text, _ := io.ReadAll(conn) // ends only when the client's FIN arrives
		fmt.Fprintf(conn, "%d bytes", len(text))
		conn.Close()
	}()
	apply(t, p, Rule{Backends: []Backend{{Address: addr("127.19.251.30:9000")}}})
	conn, err := net.Dial("tcp4", front)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(make([]byte, 1<<20))
	conn.(*net.TCPConn).CloseWrite()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if answer, err := io.ReadAll(conn); err != nil || string(answer) != "1048576 bytes" {
		t.Errorf("after closing the sending side: %q, %v", answer, err)
	}
}

func TestConnectionLimit(t *testing.T) {
	p := NewProxy(3, func(netip.Addr) string { return "" }, slog.New(slog.DiscardHandler))
	t.Cleanup(p.Close)
	b, _ := backend(t, "127.19.251.10:8080")
	apply(t, p, Rule{Backends: []Backend{b}})
	var held []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp4", front)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	done := make(chan error, 1)
	go func() { _, err := get(""); done <- err }()
	select {
	case err := <-done:
		t.Fatalf("a fourth connection was served at a limit of 3: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	held[0].Close()
	if err := <-done; err != nil {
		t.Errorf("the waiting client was not served when a place got free: %v", err)
	}
	held[1].Close()
	held[2].Close()
}

func TestUDPFlows(t *testing.T) {
	p := newTestProxy(t)
	var backends []Backend
	for i := range 2 {
		address := fmt.Sprintf("127.19.251.%d:5353", 40+i)
		conn, err := net.ListenPacket("udp4", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			buffer := make([]byte, 100)
			for {
				n, from, err := conn.ReadFrom(buffer)
				if err != nil {
					return
				}
				conn.WriteTo([]byte(address+" "+string(buffer[:n])), from)
			}
		}()
		backends = append(backends, Backend{Address: addr(address)})
	}
	listen := Listen{"udp", addr("127.103.250.1:15353")}
	rule := func(b ...Backend) map[Listen]Rule { return map[Listen]Rule{listen: {Port: "t/t:dns", Backends: b}} }
	if failed := p.Apply(rule(backends...)); len(failed) > 0 {
		t.Fatal(failed)
	}
	ask := func(conn net.Conn) string {
		t.Helper()
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 100)
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}
	seen := map[string]bool{}
	for range 20 {
		conn, err := net.Dial("udp4", listen.Address.String())
		if err != nil {
			t.Fatal(err)
		}
		first := ask(conn)
		if second := ask(conn); second != first {
			t.Errorf("one flow went to two endpoints: %q, %q", first, second)
		}
		seen[first] = true
		conn.Close()
	}
	if len(seen) != 2 {
		t.Errorf("20 flows used %d of 2 endpoints", len(seen))
	}
	conn, _ := net.Dial("udp4", listen.Address.String())
	defer conn.Close()
	ask(conn)
	p.Apply(rule(backends[1]))
	if got, want := ask(conn), backends[1].Address.String()+" hello"; got != want {
		t.Errorf("the flow of a removed endpoint got %q, want %q", got, want)
	}
}
