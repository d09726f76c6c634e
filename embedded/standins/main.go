// Standins is a program in place of those that images of Kubernetes' test suite have and a machine may not: dig, nslookup,
// nc, nginx, pause and stress, each as far as the suite and a person who looks around in a pod use it. The name it is called by, or
// its first argument, says which.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

var programs = map[string]func(args []string) error{
	"dig": dig, "nslookup": nslookup, "nc": netcat, "nginx": serve, "pause": pause, "stress": stress,
}

func main() {
	args := os.Args
	run := programs[filepath.Base(args[0])]
	if run == nil && len(args) > 1 {
		args = args[1:]
		run = programs[args[0]]
	}
	if run == nil {
		fmt.Fprintln(os.Stderr, "usage: standins dig|nslookup|nc|nginx|pause|stress …")
		os.Exit(2)
	}
	if err := run(args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(args[0]), err)
		os.Exit(1)
	}
}

// ended tells of the signals that end a program well.
func ended() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	return signals
}

// pause does nothing until it is ended.
func pause([]string) error {
	<-ended()
	return nil
}
