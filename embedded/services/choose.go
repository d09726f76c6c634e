package services

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Chooser chooses endpoints for one client, as kube-proxy does: at random for each connection, or the one it was given before where
// the Service wants that.
type Chooser struct {
	path   string
	client netip.Addr
	shared bool

	mu    sync.Mutex
	read  version // of the file that table is from
	table *Table
	given map[string]remembered // by the name of the Service's port
}

// version tells one content of the file from another, as each is a file of its own.
type version struct {
	inode    uint64
	size     int64
	modified unix.Timespec
}

type remembered struct {
	endpoint netip.AddrPort
	until    time.Time
}

// NewChooser returns a chooser for the client with an address. Without a table at path it knows no Service. A client that shares its
// address with others, which must all be given the same endpoint, leaves Services with affinity to the proxy.
func NewChooser(path string, client netip.Addr, shared bool) *Chooser {
	return &Chooser{path: path, client: client, shared: shared, given: map[string]remembered{}}
}

// Choose returns the endpoint for a connection to a Service. It is not known when the table does not name it: the proxy decides then.
// A Service that is known and has no endpoint for this client gives none.
func (c *Chooser) Choose(service netip.AddrPort) (endpoint netip.AddrPort, known bool) {
	if c.path == "" {
		return netip.AddrPort{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh()
	if c.table == nil {
		return netip.AddrPort{}, false
	}
	port, known := c.table.Ports[service]
	if !known || port.Affinity > 0 && c.shared {
		return netip.AddrPort{}, false
	}
	usable := port.Endpoints
	if len(port.OnNode) > 0 {
		if own, found := port.OnNode[c.table.Node(c.client)]; found {
			usable = own
		}
	}
	if len(usable) == 0 {
		return netip.AddrPort{}, true
	}
	return c.pick(port, usable, time.Now()), true
}

func (c *Chooser) pick(port Port, usable []netip.AddrPort, now time.Time) netip.AddrPort {
	if port.Affinity <= 0 {
		return usable[rand.IntN(len(usable))]
	}
	before, found := c.given[port.Name]
	at := slices.Index(usable, before.endpoint)
	if !found || at < 0 || now.After(before.until) {
		at = rand.IntN(len(usable))
	}
	c.given[port.Name] = remembered{usable[at], now.Add(port.Affinity)}
	return usable[at]
}

// refresh reads the table again when the file is another one. What cannot be read is no table, and is tried again each time.
func (c *Chooser) refresh() {
	var s unix.Stat_t
	if unix.Stat(c.path, &s) != nil {
		c.table = nil
		return
	}
	current := version{s.Ino, s.Size, s.Mtim}
	if c.table != nil && c.read == current {
		return
	}
	c.table = nil
	text, err := os.ReadFile(c.path)
	table := &Table{}
	if err != nil || json.Unmarshal(text, table) != nil {
		return
	}
	c.table, c.read = table, current // if the file was replaced meanwhile, the next call sees another version
	names := map[string]bool{}
	for _, port := range table.Ports {
		names[port.Name] = true
	}
	maps.DeleteFunc(c.given, func(name string, _ remembered) bool { return !names[name] })
}
