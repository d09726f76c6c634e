package services

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var (
	web    = netip.MustParseAddrPort("127.96.1.1:10080")
	first  = netip.MustParseAddrPort("127.18.1.2:8080")
	second = netip.MustParseAddrPort("127.18.2.2:8080")
	client = netip.MustParseAddr("127.18.1.9")
)

func open(t *testing.T, shared bool) (*Publisher, *Chooser, func(Port)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	p, c := &Publisher{Path: path}, NewChooser(path, client, shared)
	return p, c, func(port Port) {
		t.Helper()
		port.Name = "default/web:http"
		nodes := map[netip.Prefix]string{netip.MustParsePrefix("127.18.1.0/24"): "worker-1", netip.MustParsePrefix("127.18.2.0/24"): "worker-2"}
		if err := p.Publish(Table{nodes, map[netip.AddrPort]Port{web: port}}); err != nil {
			t.Fatal(err)
		}
	}
}

func chosen(c *Chooser) map[netip.AddrPort]int {
	out := map[netip.AddrPort]int{}
	for range 1000 {
		endpoint, _ := c.Choose(web)
		out[endpoint]++
	}
	return out
}

func TestEndpointsAreChosenAtRandom(t *testing.T) {
	_, c, publish := open(t, false)
	publish(Port{Endpoints: []netip.AddrPort{first, second}})
	if got := chosen(c); got[first] < 300 || got[second] < 300 { // each has 500 with a deviation of 16
		t.Error(got)
	}
}

func TestTheTableIsReadAgainWhenItChanges(t *testing.T) {
	p, c, publish := open(t, false)
	for range 200 {
		for _, want := range []netip.AddrPort{first, second} {
			publish(Port{Endpoints: []netip.AddrPort{want}})
			if got, known := c.Choose(web); got != want || !known {
				t.Fatalf("%v, %v; want %v", got, known, want)
			}
		}
	}
	if info, err := os.Stat(p.Path); err != nil || info.Mode() != 0o600 {
		t.Error(info, err)
	}
	if left, _ := filepath.Glob(p.Path + ".*"); len(left) > 0 {
		t.Error(left)
	}
	for name, spoil := range map[string]func() error{
		"half": func() error { return os.WriteFile(p.Path, []byte(`{"ports": {`), 0o600) },
		"none": func() error { return os.Remove(p.Path) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if got, known := c.Choose(web); known {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAffinityLastsItsTime(t *testing.T) {
	_, c, publish := open(t, false)
	port := Port{Name: "default/web:http", Affinity: time.Hour, Endpoints: []netip.AddrPort{first, second}}
	publish(port)
	got := chosen(c)
	if len(got) != 1 {
		t.Fatal(got)
	}
	given, _ := c.Choose(web)
	others := 0
	for range 100 {
		if c.pick(port, port.Endpoints, time.Now().Add(2*time.Hour)) != given {
			others++
		}
		c.given = map[string]remembered{port.Name: {given, time.Now().Add(time.Hour)}}
	}
	if others == 0 {
		t.Error("the endpoint is kept after its time")
	}
	publish(Port{Affinity: time.Hour, Endpoints: []netip.AddrPort{first}})
	if got := chosen(c); got[first] != 1000 {
		t.Error(got)
	}
	publish(Port{Affinity: time.Hour, Endpoints: []netip.AddrPort{first, second}})
	if got := chosen(c); got[first] != 1000 {
		t.Error("the second choice is not kept: ", got)
	}
}

func TestClientsThatShareAnAddressLeaveAffinityToTheProxy(t *testing.T) {
	_, c, publish := open(t, true)
	publish(Port{Affinity: time.Hour, Endpoints: []netip.AddrPort{first}})
	if got, known := c.Choose(web); known {
		t.Error(got)
	}
	publish(Port{Endpoints: []netip.AddrPort{first}})
	if got, known := c.Choose(web); got != first || !known {
		t.Error(got, known)
	}
}

func TestEndpointsOfTheClientsNode(t *testing.T) {
	_, c, publish := open(t, false)
	publish(Port{Endpoints: []netip.AddrPort{second}, OnNode: map[string][]netip.AddrPort{"worker-1": {first}}})
	if got := chosen(c); got[first] != 1000 {
		t.Error(got)
	}
	publish(Port{OnNode: map[string][]netip.AddrPort{"worker-1": {}, "worker-2": {second}}})
	if got, known := c.Choose(web); got.IsValid() || !known {
		t.Error(got, known)
	}
}

func BenchmarkChoose(b *testing.B) {
	path := filepath.Join(b.TempDir(), FileName)
	p, c := &Publisher{Path: path}, NewChooser(path, client, false)
	if err := p.Publish(Table{nil, map[netip.AddrPort]Port{web: {Endpoints: []netip.AddrPort{first, second}}}}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c.Choose(web)
	}
}
