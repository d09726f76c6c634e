// Command shim is the small companion of every process of the embedded cluster: it starts pods' and components' programs
// under the socket filter, supervises them, and outlives the kubelet.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"labkit.dev/embedded/sockets"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: shim init|pod|supervise|ctl|run|probe …")
		os.Exit(2)
	}
	switch args := os.Args[2:]; os.Args[1] {
	case "init":
		sockets.Init(args)
	case "try-bind":
		sockets.TryBind()
	case "try-mount":
		sockets.TryMount()
	case "probe":
		_ = json.NewEncoder(os.Stdout).Encode(sockets.Probe())
	default:
		fmt.Fprintf(os.Stderr, "shim: no command %q\n", os.Args[1])
		os.Exit(2)
	}
}
