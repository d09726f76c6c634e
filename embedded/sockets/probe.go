package sockets

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Support is what the kernel and the sandbox around us allow.
type Support struct {
	Sockets               bool              `json:"sockets"`          // the socket filter works as a whole
	SeccompNotify         bool              `json:"seccomp_notify"`   // Linux 5.9; not in all sandboxes
	PidfdGetfd            bool              `json:"pidfd_getfd"`      // with process_vm_readv; not in all sandboxes
	UserNamespaces        bool              `json:"user_namespaces"`  // a process can be in one of its own
	MountNamespaces       bool              `json:"mount_namespaces"` // a process can have mounts of its own
	UnprivilegedPortStart int               `json:"unprivileged_port_start"`
	Reasons               map[string]string `json:"reasons,omitempty"` // why something is not allowed, by the names above
}

// Probe tries what pods need, by doing it.
func Probe() Support {
	out := Support{UnprivilegedPortStart: 1024, Reasons: map[string]string{}}
	if raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		out.UnprivilegedPortStart, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
	}
	try := func(name string, err error) bool {
		if err != nil {
			out.Reasons[name] = err.Error()
		}
		return err == nil
	}
	out.Sockets = try("sockets", Supported())
	out.SeccompNotify = out.Sockets || try("seccomp_notify", notifySupported())
	out.PidfdGetfd = out.Sockets || try("pidfd_getfd", handlesSupported())
	out.UserNamespaces = try("user_namespaces", userNamespacesSupported())
	out.MountNamespaces = try("mount_namespaces", MountsSupported())
	return out
}

// notifySupported asks the kernel for user notification; a sandbox that refuses seccomp altogether refuses this too.
func notifySupported() error {
	const getActionAvailable = 2
	action := uint32(retNotify)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, getActionAvailable, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// handlesSupported takes a descriptor and reads memory by way of the kernel's interfaces for other processes: of our own one,
// so that only a sandbox can refuse.
func handlesSupported() error {
	handle, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(handle)
	fd, err := unix.PidfdGetfd(handle, handle, 0)
	if err != nil {
		return fmt.Errorf("pidfd_getfd: %w", err)
	}
	unix.Close(fd)
	from, to := []byte{1}, []byte{0}
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&from[0])), Len: 1}}
	if _, err := unix.ProcessVMReadv(os.Getpid(), []unix.Iovec{{Base: &to[0], Len: 1}}, remote, 0); err != nil {
		return fmt.Errorf("process_vm_readv: %w", err)
	}
	return nil
}

func userNamespacesSupported() error {
	cmd := exec.Command("/proc/self/exe", "try-nothing")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("user namespaces: %w", err)
	}
	return nil
}

// Supported runs a program under a filter and says why that fails; nil when it works. The answer is computed once.
var Supported = sync.OnceValue(func() error {
	cmd := &exec.Cmd{} // Start runs this program itself: nothing is looked up in PATH
	policy := Policy{Kind: Pod, Address: netip.AddrFrom4([4]byte{127, 18, 0, 254})}
	var told bytes.Buffer
	cmd.Stderr = &told
	if err := New(policy).Start(cmd, Spec{Argv: []string{"/proc/self/exe", "try-bind"}}); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the socket filter does not work here: %v %s", err, told.String())
	}
	return nil
})

// TryBind is the main function of the probe's program: it binds 0.0.0.0 and must find itself at the pod's address.
func TryBind() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{})
	}
	if err == nil {
		name, _ := unix.Getsockname(fd)
		if v4, ok := name.(*unix.SockaddrInet4); !ok || v4.Addr != [4]byte{127, 18, 0, 254} {
			err = errors.New("bind was not redirected")
		}
	}
	if err != nil {
		fmt.Fprint(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// MountsSupported says why a process cannot have mounts of its own; nil when it can.
var MountsSupported = sync.OnceValue(func() error {
	if os.Getenv("LABKIT_NO_USERNS") != "" {
		return errors.New("switched off by LABKIT_NO_USERNS")
	}
	cmd := exec.Command("/proc/self/exe", "try-mount")
	cmd.SysProcAttr = Namespaces()
	var told bytes.Buffer
	cmd.Stderr = &told
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mount namespaces: %v %s", err, told.String())
	}
	return nil
})

// Dispatch is the main function of the programs that the probe runs; false when args name none of them. Every program that
// calls Start or a probe has to call it first thing, because it is itself what they run.
func Dispatch(args []string) bool {
	if len(args) < 2 {
		return false
	}
	switch args[1] {
	case "init":
		Init(args[2:])
	case "try-bind":
		TryBind()
	case "try-mount":
		TryMount()
	case "try-nothing":
	default:
		return false
	}
	return true
}

// TryMount is the main function of the probe's program: a tmpfs and a bind mount.
func TryMount() {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("labkit", "/tmp", "tmpfs", 0, "size=64k")
	}
	if err == nil {
		err = unix.Mount("/usr", "/tmp", "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err != nil {
		fmt.Fprint(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Namespaces is a fresh mount namespace for a child: in a user namespace with our own ids when we are not root.
// The child must drop the capabilities it has there (they are ambient) before it runs the user's program.
func Namespaces() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	return attr
}
