// Command shim is the small companion of every process of the embedded cluster: it starts pods' and components' programs
// under the socket filter, supervises them, and outlives the kubelet.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/shim"
	"labkit.dev/embedded/sockets"
	"labkit.dev/embedded/supervise"
)

func main() {
	if len(os.Args) < 2 {
		fail(2, errors.New("usage: shim pod|end-pods|supervise|ctl|run|probe …"))
	}
	// One shim runs per pod: small rather than fast, but with a processor to spare while the socket filter's loop waits.
	debug.SetGCPercent(50)
	runtime.GOMAXPROCS(2)
	args := os.Args[2:]
	sockets.EnterRootfs = rootfs.Enter
	switch os.Args[1] {
	case "pause":
		shim.Pause(args)
	case "list":
		shim.List(args)
	case "try-pids":
		shim.TryPids()
	case "try-mounts", "try-user":
		if err := shim.TryIsolation(os.Args[1], strings.Join(args, " ")); err != nil {
			fail(1, err)
		}
	case "pod":
		if err := shim.Main(args); err != nil {
			fail(1, err)
		}
	case "end-pods":
		endPodsMain(args)
	case "probe":
		_ = json.NewEncoder(os.Stdout).Encode(sockets.Probe())
	case "supervise":
		superviseMain(args)
	case "ctl":
		ctlMain(args)
	case "run":
		runMain(args)
	default:
		if !sockets.Dispatch(os.Args) {
			fail(2, fmt.Errorf("no command %q", os.Args[1]))
		}
	}
}

func superviseMain(args []string) {
	flags := flag.NewFlagSet("shim supervise", flag.ExitOnError)
	dir := flags.String("dir", "", "state directory of the cluster")
	slot := flags.Int("slot", 0, "slot of the cluster")
	_ = flags.Parse(args)
	if err := supervise.Run(*dir, *slot); err != nil {
		if errors.Is(err, supervise.ErrSlotBusy) {
			fail(3, err)
		}
		fail(1, err)
	}
}

func ctlMain(args []string) {
	flags := flag.NewFlagSet("shim ctl", flag.ExitOnError)
	dir := flags.String("dir", "", "state directory of the cluster")
	_ = flags.Parse(args)
	answer, err := supervise.Call(*dir, []byte(strings.Join(flags.Args(), " ")))
	if err != nil {
		fail(1, err)
	}
	_, _ = os.Stdout.Write(answer)
	var response supervise.Response
	if err := json.Unmarshal(answer, &response); err != nil || response.Error != "" {
		os.Exit(1)
	}
}

func endPodsMain(args []string) {
	flags := flag.NewFlagSet("shim end-pods", flag.ExitOnError)
	dir := flags.String("dir", "", "directory of a node's pods")
	_ = flags.Parse(args)
	if err := shim.EndAll(*dir); err != nil {
		fail(1, err)
	}
}

func runMain(args []string) {
	flags := flag.NewFlagSet("shim run", flag.ExitOnError)
	slot := flags.Int("slot", 0, "slot of the cluster")
	resolv := flags.String("resolv", "", "file to show at /etc/resolv.conf instead of the cluster's own")
	table := flags.String("services", "", "file with the cluster's table of Services")
	_ = flags.Parse(args)
	code, err := sockets.RunClient(*slot, *resolv, *table, flags.Args())
	if err != nil {
		fail(code, err)
	}
	os.Exit(code)
}

func fail(code int, err error) {
	fmt.Fprintln(os.Stderr, "shim:", err)
	os.Exit(code)
}
