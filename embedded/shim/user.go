package shim

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/rootfs"
)

// show lets a process that gets a mount namespace see itself as the user, by a user namespace in which that is the one user there
// is. Files of whoever runs the node are this user's there.
func (u User) show(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: u.UID, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: u.GID, HostID: os.Getgid(), Size: 1}}
}

// beginAs is begin for a container that may have a user. Where the kernel refuses another user namespace, it has none.
func (s *server) beginAs(c *container, cmd *exec.Cmd, done func(ended)) (int, error) {
	if c.spec.User != nil && cmd.SysProcAttr.Cloneflags != 0 {
		plain := *cmd.SysProcAttr
		c.spec.User.show(cmd.SysProcAttr)
		cmd.SysProcAttr.AmbientCaps = namespaceCapabilities
		pid, err := s.begin(cmd, c.spec.Argv, c.spec.Env, c.spec.Dir, c.spec.Rootfs, done)
		if err == nil {
			c.user = c.spec.User
			return pid, nil
		}
		log.Printf("container %s cannot be shown as user %d: %v", c.spec.ID, c.spec.User.UID, err)
		cmd.SysProcAttr = &plain
	}
	return s.begin(cmd, c.spec.Argv, c.spec.Env, c.spec.Dir, c.spec.Rootfs, done)
}

// enterAs is begin for a program in the namespaces of a container that has a user. A process of several threads cannot enter a
// user namespace: the program is started by a thread that is in the container's mount namespace for that moment, in a user
// namespace like the container's.
func (s *server) enterAs(c *container, cmd *exec.Cmd, argv []string, plan *rootfs.Plan, done func(ended)) (pid int, err error) {
	failed := inMounts(plan.Join, func() {
		c.user.show(cmd.SysProcAttr)
		pid, err = s.begin(cmd, argv, c.spec.Env, c.spec.Dir, &rootfs.Plan{Stay: true}, done)
	})
	if failed != nil {
		return 0, fmt.Errorf("enter the container: %w", failed)
	}
	return pid, err
}

// inMounts calls do on a thread that is in another mount namespace.
func inMounts(namespace string, do func()) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		own, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			result <- err
			return
		}
		defer unix.Close(own)
		if err := rootfs.Join(namespace); err != nil {
			result <- err
			return
		}
		do()
		err = unix.Setns(own, unix.CLONE_NEWNS)
		result <- nil
		if err != nil { // the thread must not do anything else, nor end: what it started would be killed
			log.Print("a thread cannot leave a container: ", err)
			select {}
		}
	}()
	return <-result
}
