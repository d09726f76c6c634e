package shim

import (
	"fmt"
	"log"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// show lets a process that gets a mount namespace see itself as the user, by a user namespace in which that is the one user there
// is. Files of whoever runs the node are this user's there.
func (u User) show(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: u.UID, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: u.GID, HostID: os.Getgid(), Size: 1}}
}

// mapUser does what show does once the process is there: os/exec looks for it by a number that is none in a container's /proc.
func (s *server) mapUser(u *User) func(pid int) error {
	return func(pid int) error {
		for _, file := range []struct{ name, text string }{
			{"uid_map", fmt.Sprintf("%d %d 1\n", u.UID, os.Getuid())}, {"setgroups", "deny"}, {"gid_map", fmt.Sprintf("%d %d 1\n", u.GID, os.Getgid())},
		} {
			fd, err := unix.Openat(int(s.proc.Fd()), fmt.Sprintf("%d/%s", pid, file.name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				_, err = unix.Write(fd, []byte(file.text))
				unix.Close(fd)
			}
			if err != nil {
				return fmt.Errorf("%s of the container's user: %w", file.name, err)
			}
		}
		return nil
	}
}

// beginAs is begin for the main process of a container that may have a user. When that cannot be shown, the program does not run:
// whether it can in general was found out before.
func (s *server) beginAs(p *program, done func(ended)) (main identity, err error) {
	c, attr := p.container, p.cmd.SysProcAttr
	user := c.spec.User
	switch {
	case user == nil || attr.Cloneflags == 0:
		user = nil
	case !s.pod.Users:
		log.Printf("container %s is not shown as user %d: that does not work on this machine", c.spec.ID, user.UID)
		user = nil
	default:
		user.show(attr)
		attr.AmbientCaps = namespaceCapabilities
		if p.join != nil { // see mapUser
			attr.UidMappings, attr.GidMappings, p.user, p.mapLate = nil, nil, user, true
		}
	}
	if main, err = s.beginInside(p, done); err == nil {
		c.user = user
	}
	return main, err
}

// beginInside is begin in the namespaces that the program is to start in.
func (s *server) beginInside(p *program, done func(ended)) (main identity, err error) {
	failed := inside(p.mounts, p.join, func() { main, err = s.begin(p, done) })
	if failed != nil {
		return main, fmt.Errorf("enter the container: %w", failed)
	}
	return main, err
}
