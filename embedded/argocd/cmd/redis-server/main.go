// Command redis-server is miniredis with the flags of Redis that Argo CD's manifests use: a cache in memory, for machines
// on which Redis is not installed.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
)

func main() {
	bind := flag.String("bind", "0.0.0.0", "address to listen on")
	port := flag.String("port", "6379", "port to listen on")
	password := flag.String("requirepass", "", "password that clients must give")
	flag.String("save", "", "accepted: nothing is ever saved")
	flag.String("appendonly", "no", "accepted: nothing is ever saved")
	_ = flag.CommandLine.Parse(separate(os.Args[1:])) // ends the program where it fails

	server := miniredis.NewMiniRedis()
	if *password != "" {
		server.RequireAuth(*password)
	}
	if err := server.StartAddr(net.JoinHostPort(*bind, *port)); err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	log.Printf("listening on %s", server.Addr())
	stop, done := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer done()
	expire(stop, server)
}

// separate splits an option from its value where both are one argument, as Redis does.
func separate(args []string) []string {
	var out []string
	for _, arg := range args {
		name, value, found := strings.Cut(arg, " ")
		out = append(out, name)
		if found {
			out = append(out, value)
		}
	}
	return out
}

// expire lets keys grow old until it is stopped; miniredis has no clock of its own.
func expire(stop context.Context, server *miniredis.Miniredis) {
	const step = time.Second
	for ticker := time.NewTicker(step); ; {
		select {
		case <-stop.Done():
			ticker.Stop()
			return
		case <-ticker.C:
			server.FastForward(step)
		}
	}
}
