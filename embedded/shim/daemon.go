package shim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespaceCapabilities are what the daemon needs in a user namespace: mounts, joining them, giving up capabilities, and its
// hand on its pod's sockets and processes.
var namespaceCapabilities = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SETPCAP, unix.CAP_SYS_PTRACE, unix.CAP_KILL}

// isolations are the ways to give a pod mounts and a host name of its own, the best first.
func isolations() []*syscall.SysProcAttr {
	uid, gid := os.Getuid(), os.Getgid()
	var out []*syscall.SysProcAttr
	if uid == 0 {
		out = append(out, &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS})
	}
	user := &syscall.SysProcAttr{
		Setsid: true, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		AmbientCaps: namespaceCapabilities,
	}
	return append(out, user)
}

// daemonize starts the daemon and returns when it listens. The daemon is not our child for long: the caller need not wait for it.
// A pod that is to have mounts of its own does not start without: whether there can be any was found out before.
func daemonize(dir string, pod Pod) error {
	if pod.Links {
		return spawn(dir, &syscall.SysProcAttr{Setsid: true}, "plain")
	}
	return anyOf(isolations(), func(way *syscall.SysProcAttr) error { return spawn(dir, way, "mounts") })
}

// anyOf tries ways until one works; when none does, the error has the reasons of all.
func anyOf(ways []*syscall.SysProcAttr, try func(*syscall.SysProcAttr) error) error {
	var refused []string
	for _, way := range ways {
		err := try(way)
		if err == nil {
			return nil
		}
		refused = append(refused, err.Error())
	}
	return errors.New(strings.Join(refused, "; "))
}

// marks are the variables of our environment by which a cluster finds its processes.
func marks() (out []string) {
	for _, entry := range os.Environ() {
		if strings.HasPrefix(entry, "LABKIT_") {
			out = append(out, entry)
		}
	}
	return out
}

func spawn(dir string, way *syscall.SysProcAttr, mode string) error {
	log, err := os.OpenFile(filepath.Join(dir, "shim.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reader.Close()
	cmd := exec.Command("/proc/self/exe", "pod", "--dir", dir, "--serve", mode)
	cmd.Args[0] = "shim"
	cmd.Env = append(marks(), "GOMAXPROCS=2", "GOGC=50", SandboxVariable+"="+filepath.Base(dir))
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, way
	cmd.ExtraFiles = []*os.File{writer}
	err = cmd.Start()
	writer.Close()
	if err != nil {
		return err
	}
	answer, _ := bufio.NewReader(reader).ReadString('\n')
	if strings.TrimSpace(answer) == "ready" {
		return cmd.Process.Release()
	}
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); answer == "" {
		return fmt.Errorf("the pod's shim ended at its start: %w", err)
	}
	return errors.New(strings.TrimSpace(answer))
}

// serve is the daemon. It says "ready", or what is wrong, at descriptor 3.
func serve(dir string, pod Pod, args []string) error {
	starter := os.NewFile(3, "starter")
	unix.CloseOnExec(3)
	listener, s, err := prepare(dir, pod, args)
	if err != nil {
		_, _ = fmt.Fprintln(starter, err)
		return err
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	go func() {
		<-terminated
		s.end()
		os.Exit(0)
	}()
	go s.sample()
	_, _ = io.WriteString(starter, "ready\n")
	starter.Close()
	debug.FreeOSMemory()
	s.serve(listener)
	return nil
}

func prepare(dir string, pod Pod, args []string) (*net.UnixListener, *server, error) {
	state := State{Pid: os.Getpid(), Started: self().Started, Boot: bootID(), Mounts: args[0] == "mounts"}
	if state.Mounts {
		if err := tryMounts(dir); err != nil {
			return nil, nil, err
		}
		if pod.Hostname != "" {
			if err := unix.Sethostname([]byte(pod.Hostname)); err != nil {
				return nil, nil, fmt.Errorf("sethostname: %w", err)
			}
		}
	}
	state.Limits = limitsWork(state)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("prctl: %w", err)
	}
	unix.Umask(0o022)
	_ = os.WriteFile("/proc/self/comm", []byte("shim"), 0) // or it would be "exe"
	var listener *net.UnixListener
	err := inDirectory(dir, socketName, func(name string) (err error) {
		_ = os.Remove(name)
		if listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"}); err == nil {
			listener.SetUnlinkOnClose(false)
			err = os.Chmod(name, 0o600)
		}
		return err
	})
	if err == nil {
		err = writeJSON(filepath.Join(dir, "shim.json"), state)
	}
	return listener, newServer(dir, pod, state), err
}

// tryMounts does what containers will need, in the mount namespace that this process has of its own.
func tryMounts(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	stage := filepath.Join(dir, "stage")
	if err := os.MkdirAll(stage, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("labkit", stage, "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	defer unix.Unmount(stage, unix.MNT_DETACH)
	if err := unix.Mount("/usr", stage, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind mount: %w", err)
	}
	return unix.Unmount(stage, unix.MNT_DETACH)
}
