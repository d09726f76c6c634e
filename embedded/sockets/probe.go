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

	"golang.org/x/sys/unix"
)

// Support is what the kernel and the sandbox around us allow.
type Support struct {
	Sockets               bool              `json:"sockets"`         // seccomp user notification and pidfd_getfd
	UserNamespaces        bool              `json:"user_namespaces"` // and mounts in them (or root's own mount namespaces)
	UnprivilegedPortStart int               `json:"unprivileged_port_start"`
	Reasons               map[string]string `json:"reasons,omitempty"` // why something is not allowed
}

// Probe tries what pods need, by doing it.
func Probe() Support {
	out := Support{UnprivilegedPortStart: 1024, Reasons: map[string]string{}}
	if raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		out.UnprivilegedPortStart, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
	}
	if err := Supported(); err != nil {
		out.Reasons["sockets"] = err.Error()
	} else {
		out.Sockets = true
	}
	if err := MountsSupported(); err != nil {
		out.Reasons["user_namespaces"] = err.Error()
	} else {
		out.UserNamespaces = true
	}
	return out
}

// Supported runs a program under a filter and says why that fails; nil when it works. The answer is computed once.
var Supported = sync.OnceValue(func() error {
	cmd := exec.Command("true")
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
