package vip

import (
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// connection is a client's connection joined with one to its endpoint. Each side's data goes to the other one, and so do its
// end (a half-close) and its reset.
type connection struct {
	sides [2]*net.TCPConn // client, endpoint

	mu    sync.Mutex
	ended [2]bool // everything that the side sent was read, its end too
	lost  [2]bool // the side is gone
	reset bool    // one of them was reset
}

// hasty is how we find out that a side which has ended its direction is gone altogether. The kernel answers for a program that has
// closed its connection or ended for another minute (net.ipv4.tcp_fin_timeout), and with a reset after that.
var hasty = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: 2 * time.Second, Count: 3}

// join copies both ways (in the kernel, by splice) until both directions ended, one failed, or nobody is left to read the other.
func join(client, server *net.TCPConn) {
	c := &connection{sides: [2]*net.TCPConn{client, server}}
	for side := range c.sides {
		defer losses.watch(c.sides[side], func(why func() error) { c.lose(side, why) })()
	}
	var both sync.WaitGroup
	both.Go(func() { c.carry(1, 0) })
	c.carry(0, 1)
	both.Wait()
	c.close()
}

// carry takes what one side sends to the other one.
func (c *connection) carry(from, to int) {
	if _, err := c.sides[to].ReadFrom(c.sides[from]); err != nil { // one is gone: pass it on to the other
		c.abort()
		return
	}
	c.mu.Lock()
	c.ended[from] = true
	lost, wasReset := c.lost[from], c.reset
	c.mu.Unlock()
	switch {
	case wasReset:
		c.abort()
	case lost:
		c.close()
	default:
		_ = c.sides[to].CloseWrite()
		_ = c.sides[from].SetKeepAliveConfig(hasty)
	}
}

// lose is told that a side is gone. One that had ended before has had everything of its own delivered; what the other one still
// sends has no reader.
func (c *connection) lose(side int, why func() error) {
	c.mu.Lock() // for why too: it takes the error from the socket, and carry must not see a plain end before reset is set
	reason := why()
	c.lost[side] = c.lost[side] || reason != nil
	c.reset = c.reset || errors.Is(reason, unix.ECONNRESET)
	wasReset, over := c.reset, c.lost[side] && c.ended[side]
	c.mu.Unlock()
	if wasReset {
		c.abort()
	} else if over {
		c.close()
	}
}

// close leaves it to the kernel to deliver what is under way.
func (c *connection) close() {
	for _, side := range c.sides {
		side.Close()
	}
}

func (c *connection) abort() {
	for _, side := range c.sides {
		reset(side)
	}
}

// reset closes a connection so that the client sees an error at once: what it would get is "connection refused".
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}
