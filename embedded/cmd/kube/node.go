package main

import (
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"

	"labkit.dev/embedded/join"
	"labkit.dev/embedded/node"
	"labkit.dev/embedded/runtime"
)

// runNode runs the kubelet with the process runtime in it.
func runNode(_ string, args []string) error {
	options, err := node.ParseFlags(args, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	return node.Run(options, func(o *node.Options) (node.Runtime, error) {
		return runtime.New(runtime.Config{
			NodeDir: filepath.Dir(o.PodsDir), ImagesDir: o.ImagesDir, ShimPath: o.Shim,
			PodPrefix: o.PodCIDR, NodeAddress: o.NodeIP, NodeName: o.Name, PodProcesses: o.PodProcesses,
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	})
}

// runJoin is the discovery that comes before a node's first start.
func runJoin(_ string, args []string) error {
	options, err := join.ParseFlags(args, os.Stdin, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	return join.Discover(options)
}
