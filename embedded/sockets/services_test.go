package sockets

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labkit.dev/embedded/services"
)

// clientOf is a pod that finds Services in a table of the test's.
func clientOf(last byte, publisher *services.Publisher) *Supervisor {
	policy := pod(last).policy
	policy.Services = publisher.Path
	return New(policy)
}

// named serves a TCP address by telling its name and who asks.
func named(t *testing.T, address, name string) netip.AddrPort {
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
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "%s %s\n", name, host)
			c.Close()
		}
	}()
	return netip.MustParseAddrPort(address)
}

const (
	visit  = "import socket\ndef visit():\n  try: s = socket.create_connection(('127.103.251.7', 80), 5); return s.makefile().read().strip()\n  except OSError as e: return e.strerror\n"
	served = "127.103.251.7:10080"
)

func publish(t *testing.T, p *services.Publisher, port *services.Port) {
	t.Helper()
	table := services.Table{Nodes: map[netip.Prefix]string{netip.MustParsePrefix("127.19.250.0/24"): "worker-1"}, Ports: map[netip.AddrPort]services.Port{}}
	if port != nil {
		port.Name = "default/web:http"
		table.Ports[netip.MustParseAddrPort(served)] = *port
	}
	if err := p.Publish(table); err != nil {
		t.Fatal(err)
	}
}

func TestConnectionsGoStraightToAnEndpoint(t *testing.T) {
	need(t, "python3")
	table := &services.Publisher{Path: filepath.Join(t.TempDir(), services.FileName)}
	client := clientOf(71, table)
	several := visit + "print(sorted({visit() for _ in range(40)}))"
	named(t, served, "proxy")
	if got := output(t, client, "python3", "-c", several); got != "['proxy 127.19.250.71']\n" {
		t.Error("without a table: ", got)
	}
	a, b := named(t, "127.19.250.72:8072", "a"), named(t, "127.19.250.73:8073", "b")
	all := []netip.AddrPort{a, b}
	for name, c := range map[string]struct {
		port *services.Port
		want string
	}{
		"unknown":           {nil, "['proxy 127.19.250.71']\n"},
		"two":               {&services.Port{Endpoints: all}, "['a 127.19.250.71', 'b 127.19.250.71']\n"},
		"one":               {&services.Port{Endpoints: all[1:]}, "['b 127.19.250.71']\n"},
		"none":              {&services.Port{}, "['Connection refused']\n"},
		"on the node":       {&services.Port{Endpoints: all, OnNode: map[string][]netip.AddrPort{"worker-1": {a}}}, "['a 127.19.250.71']\n"},
		"none on the node":  {&services.Port{Endpoints: all, OnNode: map[string][]netip.AddrPort{"worker-1": {}}}, "['Connection refused']\n"},
		"on another node":   {&services.Port{Endpoints: all[1:], OnNode: map[string][]netip.AddrPort{"worker-2": {a}}}, "['b 127.19.250.71']\n"},
		"a refusing one":    {&services.Port{Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.19.250.74:8074")}}, "['Connection refused']\n"},
		"outside a cluster": {&services.Port{Endpoints: []netip.AddrPort{named(t, "127.0.0.80:8080", "outside")}}, "['outside 127.0.0.1']\n"},
	} {
		publish(t, table, c.port)
		if got := output(t, client, "python3", "-c", several); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	publish(t, table, &services.Port{Endpoints: all, Affinity: time.Hour})
	first := output(t, client, "python3", "-c", visit+"print(visit())")
	if got := output(t, client, "python3", "-c", several); got != "['"+strings.TrimSpace(first)+"']\n" {
		t.Errorf("after %s: %s", first, got)
	}
	if got := output(t, New(Policy{Kind: Client, Services: table.Path}), "python3", "-c", several); got != "['proxy 127.0.0.1']\n" {
		t.Error("affinity of clients that share an address: ", got)
	}
}

func TestAPodReachesItselfByItsService(t *testing.T) {
	need(t, "python3")
	table := &services.Publisher{Path: filepath.Join(t.TempDir(), services.FileName)}
	publish(t, table, &services.Port{Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.19.250.75:8075")}})
	program := visit + "import threading\nl = socket.create_server(('', 8075))\ndef once():\n  c, peer = l.accept(); c.sendall(peer[0].encode()); c.close()\n" +
		"threading.Thread(target=once).start(); print(visit())"
	if got := output(t, clientOf(75, table), "python3", "-c", program); got != "127.19.250.75\n" {
		t.Error(got)
	}
}

func TestNonBlockingConnectionsAreRefusedToo(t *testing.T) {
	need(t, "python3")
	table := &services.Publisher{Path: filepath.Join(t.TempDir(), services.FileName)}
	client := clientOf(76, table)
	program := "import asyncio\nasync def go():\n  for _ in range(100):\n    try: await asyncio.open_connection('127.103.251.7', 80); print('made')\n    except ConnectionRefusedError: pass\nasyncio.run(go())"
	for name, port := range map[string]*services.Port{"no endpoint": {}, "refused": {Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.19.250.77:8077")}}} {
		publish(t, table, port)
		if got := output(t, client, "python3", "-c", program); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestChangesAreSeenAtOnce replaces the table under a client that connects all the time.
func TestChangesAreSeenAtOnce(t *testing.T) {
	need(t, "python3")
	table := &services.Publisher{Path: filepath.Join(t.TempDir(), services.FileName)}
	a, b := named(t, "127.19.250.78:8078", "a"), named(t, "127.19.250.79:8079", "b")
	publish(t, table, &services.Port{Endpoints: []netip.AddrPort{a}})
	program := visit + "import sys\nwhile sys.stdin.readline(): print(visit(), flush=True)"
	_, out, in := startWithInput(t, clientOf(70, table), "python3", "-c", program)
	for i := range 50 {
		want, endpoint := "a 127.19.250.70\n", a
		if i%2 == 1 {
			want, endpoint = "b 127.19.250.70\n", b
		}
		publish(t, table, &services.Port{Endpoints: []netip.AddrPort{endpoint}})
		before := len(out.String())
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		for range 500 {
			if len(out.String()) > before {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if got := out.String()[before:]; got != want {
			t.Fatalf("round %d: %q, want %q", i, got, want)
		}
	}
}
