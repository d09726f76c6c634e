package sockets

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/loopback"
)

const (
	searchDomains = "default.svc.cluster.local svc.cluster.local cluster.local"
	resolverLine  = "ndots:5"
	resolvConf    = "/etc/resolv.conf"
)

// RunClient runs a program that sees the cluster as a pod does (addresses, low ports and names), with our files, terminal and
// file system, and returns its exit code. Names resolve by cluster DNS, short ones in the namespace default: by a
// resolv.conf of the program's own where it can have mounts (resolv is a file to use instead of ours), and by LOCALDOMAIN and
// RES_OPTIONS, which glibc heeds. The table of Services is a file that may be missing.
func RunClient(slot int, resolv, table string, argv []string) (int, error) {
	if len(argv) == 0 {
		return 2, errors.New("run: no program")
	}
	if slot < 0 || slot >= loopback.Slots {
		return 2, fmt.Errorf("run: slot %d: there are slots 0 to %d", slot, loopback.Slots-1)
	}
	runtime.LockOSThread() // the program gets a signal when the thread that starts it ends
	dns := loopback.Plan{Slot: slot}.DNS()
	spec := wireSpec{KeepSignals: true, Spec: Spec{
		Argv: argv, Env: append(os.Environ(), "LOCALDOMAIN="+searchDomains, "RES_OPTIONS="+resolverLine),
	}}
	cmd := &exec.Cmd{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, SysProcAttr: &syscall.SysProcAttr{}}
	if MountsSupported() == nil {
		if resolv == "" {
			text := fmt.Sprintf("search %s\nnameserver %s\noptions %s\n", searchDomains, dns, resolverLine)
			path, err := temporary(text)
			if err != nil {
				return 128, err
			}
			defer os.Remove(path)
			resolv = path
		}
		cmd.SysProcAttr, spec.Resolv = Namespaces(), resolv
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGHUP
	// Programs that go to the background stay below us, as some kernels let only ancestors answer for a process (Yama).
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	signals := make(chan os.Signal, 8) // before the start: what comes while it lasts is not lost
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		if !signal.Ignored(s) { // as under nohup
			signal.Notify(signals, s)
		}
	}
	if err := New(Policy{Kind: Client, DNS: netip.AddrPortFrom(dns, 53), Services: table}).start(cmd, spec); err != nil {
		var failure *StartError
		if errors.As(err, &failure) {
			return failure.Code, err
		}
		return 128, err
	}
	go forward(signals, cmd.Process)
	return reap(cmd.Process.Pid)
}

func temporary(text string) (string, error) {
	file, err := os.CreateTemp("", "resolv.conf-")
	if err != nil {
		return "", err
	}
	_, err = file.WriteString(text)
	return file.Name(), errors.Join(err, file.Chmod(0o644), file.Close())
}

// forward passes signals on. Those of the terminal's keys reach the program anyhow, because it is in our process group.
func forward(signals <-chan os.Signal, program *os.Process) {
	_, err := unix.IoctlGetTermios(0, unix.TCGETS)
	terminal := err == nil
	for s := range signals {
		if terminal && (s == syscall.SIGINT || s == syscall.SIGQUIT) {
			continue
		}
		_ = program.Signal(s) // by its pidfd: its number may be another's when it was waited for
	}
}

// reap waits for the program, and for whatever it leaves behind meanwhile; its exit code is that of a shell.
func reap(pid int) (int, error) {
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && ended != pid:
		case err != nil:
			return 128, err
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

// enterResolv shows a file at /etc/resolv.conf, in the mount namespace that this process is alone in, and gives up the
// capability for it.
func enterResolv(path string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts private: %w", err)
	}
	// A machine without this file has no resolver to redirect; the variables have to do.
	if err := unix.Mount(path, resolvConf, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", resolvConf, err)
	}
	if os.Getuid() == 0 {
		return nil
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}
