package sockets

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"labkit.dev/embedded/loopback"
)

// RunClient runs a program that sees the cluster as a pod does (addresses, low ports and names), with our files, terminal and
// file system, and returns its exit code. Names resolve by cluster DNS, short ones in the namespace default.
func RunClient(slot int, argv []string) (int, error) {
	if len(argv) == 0 {
		return 2, errors.New("no program to run")
	}
	dns := netip.AddrPortFrom(loopback.Plan{Slot: slot}.DNS(), 53)
	cmd := &exec.Cmd{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	env := append(os.Environ(), "LOCALDOMAIN=default.svc.cluster.local svc.cluster.local cluster.local", "RES_OPTIONS=ndots:5")
	if err := New(Policy{Kind: Client, DNS: dns}).Start(cmd, Spec{Argv: argv, Env: env}); err != nil {
		var failure *StartError
		if errors.As(err, &failure) {
			return failure.Code, err
		}
		return 128, err
	}
	// The terminal sends its signals to the program too; we only must not die of them first.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM || s == syscall.SIGHUP {
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}
