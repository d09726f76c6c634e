package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// idle is a connection of which each read and write has so long; 0 is forever.
type idle struct {
	net.Conn
	limit time.Duration
}

func (c idle) Read(p []byte) (int, error) {
	if c.limit > 0 {
		_ = c.SetReadDeadline(time.Now().Add(c.limit))
	}
	return c.Conn.Read(p)
}

// netcat connects its input and output with a port, as OpenBSD's nc: nc [-v] [-z] [-t|-u] [-w SECONDS] HOST PORT.
func netcat(args []string) error {
	flags := flag.NewFlagSet("nc", flag.ContinueOnError)
	verbose, scan := flags.Bool("v", false, "tell"), flags.Bool("z", false, "only connect")
	udp, wait := flags.Bool("u", false, "UDP"), flags.Int("w", 0, "seconds to connect, and between two packets")
	packets, port := flags.Int("W", 0, "end after so many packets"), flags.Int("p", 0, "own port")
	flags.Bool("t", true, "TCP")
	flags.Bool("N", true, "shut down after the input's end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("a host and a port are needed")
	}
	network, limit := "tcp", time.Duration(*wait)*time.Second
	dialer := net.Dialer{Timeout: limit}
	if *udp {
		network = "udp"
		if *port > 0 {
			dialer.LocalAddr = &net.UDPAddr{Port: *port}
		}
	}
	conn, err := dialer.Dial(network, net.JoinHostPort(flags.Arg(0), flags.Arg(1)))
	if err != nil {
		return fmt.Errorf("connect to %s port %s (%s) failed: %w", flags.Arg(0), flags.Arg(1), network, err)
	}
	defer conn.Close()
	if *verbose {
		fmt.Fprintf(os.Stderr, "Connection to %s %s port [%s/*] succeeded!\n", flags.Arg(0), flags.Arg(1), network)
	}
	if *scan {
		return nil
	}
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}()
	return receive(idle{conn, limit}, *packets)
}

// receive prints what comes until the other end closes, nothing has come for the limit, or enough packets have.
func receive(conn io.Reader, packets int) error {
	buffer := make([]byte, 64<<10)
	for count := 1; ; count++ {
		n, err := conn.Read(buffer)
		if _, failed := os.Stdout.Write(buffer[:n]); failed != nil {
			return failed
		}
		var timeout net.Error
		switch {
		case errors.Is(err, io.EOF) || errors.As(err, &timeout) && timeout.Timeout() || packets > 0 && count >= packets:
			return nil
		case err != nil && strings.Contains(err.Error(), "connection refused"):
			return err
		case err != nil:
			return nil
		}
	}
}
