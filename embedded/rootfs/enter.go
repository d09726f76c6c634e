package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// maxShadow bounds the entries of a directory of the host that is rebuilt because something is added to it.
const maxShadow = 20000

// Enter makes the plan the file system of this process, or of this thread alone when it joins another's; the caller must
// have a mount namespace of its own, and executes a program from this thread next. Capabilities that came with a user
// namespace are dropped.
func Enter(raw json.RawMessage) error {
	runtime.LockOSThread()
	var plan Plan
	if err := json.Unmarshal(raw, &plan); err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	var err error
	switch {
	case plan.Stay:
	case plan.Join != "":
		err = Join(plan.Join)
	default:
		err = build(plan)
	}
	if err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	return dropCapabilities(plan.Capabilities)
}

// Join enters a mount namespace with this thread alone, which the caller has locked.
func Join(namespace string) error {
	fd, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("the container's mount namespace: %w", err)
	}
	defer unix.Close(fd)
	return Enters(fd)
}

// Enters is Join for a namespace that is open.
func Enters(fd int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	return nil
}

func build(plan Plan) error {
	root, err := tree(plan.Mounts)
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("labkit", plan.Stage, "tmpfs", unix.MS_NOSUID, "mode=0755,size=64m"); err != nil {
		return fmt.Errorf("tmpfs at %s: %w", plan.Stage, err)
	}
	b := builder{proc: plan.Proc}
	if err := b.shadow(root, "/", plan.Stage); err != nil {
		return err
	}
	if plan.ReadOnly {
		if err := b.protect(plan.Stage); err != nil {
			return fmt.Errorf("make the file system read-only: %w", err)
		}
	}
	for _, target := range b.readOnly {
		if err := remountReadOnly(target); err != nil {
			return fmt.Errorf("make %s read-only: %w", strings.TrimPrefix(target, plan.Stage), err)
		}
	}
	if err := unix.Chdir(plan.Stage); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return unix.Chdir("/")
}

type builder struct {
	readOnly, writable []string
	proc               string // see Plan
}

// protect makes everything below root read-only but volumes, and what programs share memory by.
func (b *builder) protect(root string) error {
	set := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, root, unix.AT_RECURSIVE, set); err != nil {
		if errors.Is(err, unix.ENOSYS) {
			return nil
		}
		return err
	}
	clr := &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	for _, target := range append(b.writable, filepath.Join(root, "dev/shm"), filepath.Join(root, "dev/mqueue")) {
		// What the machine itself has read-only stays so, and a directory that is no mount cannot be changed.
		_ = unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, clr)
	}
	return nil
}

// shadow fills the empty directory target with what host has, bound or linked, and with what n adds.
func (b *builder) shadow(n *node, host, target string) error {
	if host == "/dev" {
		return b.devices(n, target)
	}
	entries, err := os.ReadDir(host)
	if err != nil {
		return err
	}
	if len(entries) > maxShadow {
		return fmt.Errorf("%s has %d entries; nothing can be added to it", host, len(entries))
	}
	for _, entry := range entries {
		if n.children[entry.Name()] != nil {
			continue
		}
		if err := b.show(filepath.Join(host, entry.Name()), filepath.Join(target, entry.Name()), entry.Type()); err != nil {
			return err
		}
	}
	return b.fill(n, host, target)
}

// bind shows a directory of the host at target, with what is mounted below it. The list of processes may be another one.
func (b *builder) bind(host, target string) error {
	switch {
	case host != "/proc" || b.proc == "":
		return unix.Mount(host, target, "", unix.MS_BIND|unix.MS_REC, "")
	case b.proc == NewProc:
		return unix.Mount("proc", target, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	return unix.Mount(b.proc, target, "", unix.MS_BIND|unix.MS_REC, "")
}

// show makes an entry of the host appear at target. One that is gone or may not be seen is left out.
func (b *builder) show(host, target string, kind os.FileMode) error {
	if kind&os.ModeSymlink != 0 {
		link, err := os.Readlink(host)
		if err == nil {
			err = os.Symlink(link, target)
		}
		return err
	}
	if err := mountPoint(target, !kind.IsDir()); err != nil {
		return err
	}
	err := b.bind(host, target)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		return os.Remove(target)
	}
	if err != nil {
		return fmt.Errorf("show %s: %w", host, err)
	}
	return nil
}

// fill creates n's children in target, a directory that may be written to.
func (b *builder) fill(n *node, host, target string) error {
	for name, child := range n.children {
		inner := filepath.Join(target, name)
		if err := mountPoint(inner, child.file); err != nil {
			return err
		}
		outer := ""
		if host != "" {
			outer = filepath.Join(host, name)
		}
		if err := b.make(child, outer, inner, true); err != nil {
			return err
		}
	}
	return nil
}

// make makes n at target, which exists. Host is the same path on the host, or "" where it has none. An empty directory of
// our own (fresh) is filled as it is; otherwise target shows the host's.
func (b *builder) make(n *node, host, target string, fresh bool) error {
	if n.mount != nil && n.mount.Copy && fresh {
		return copyFile(n.mount.Source, target)
	}
	if n.mount != nil {
		if err := unix.Mount(n.mount.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", n.mount.Source, n.mount.Target, err)
		}
		switch {
		case n.mount.ReadOnly:
			b.readOnly = append(b.readOnly, target)
		case n.mount.Volume:
			b.writable = append(b.writable, target)
		}
		return b.fill(n, "", target)
	}
	info, err := os.Lstat(host)
	if host == "" || err != nil || !info.IsDir() {
		return b.fill(n, "", target)
	}
	if n.fits(host) && host != "/dev" {
		if fresh {
			if err := b.bind(host, target); err != nil {
				return fmt.Errorf("show %s: %w", host, err)
			}
		}
		for name, child := range n.children {
			if err := b.make(child, filepath.Join(host, name), filepath.Join(target, name), false); err != nil {
				return err
			}
		}
		return nil
	}
	if !fresh {
		if err := unix.Mount("labkit", target, "tmpfs", unix.MS_NOSUID, "size=64m"); err != nil {
			return fmt.Errorf("tmpfs at %s: %w", host, err)
		}
	}
	_ = os.Chmod(target, info.Mode().Perm()|info.Mode()&os.ModeSticky|0o700)
	return b.shadow(n, host, target)
}

// copyFile gives the empty file target what source has.
func copyFile(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	if err := os.WriteFile(target, content, 0o600); err != nil {
		return err
	}
	return os.Chmod(target, info.Mode().Perm())
}

// fits tells whether the host's directory has a mount point of the right kind for each of n's children.
func (n *node) fits(host string) bool {
	for name, child := range n.children {
		info, err := os.Lstat(filepath.Join(host, name))
		if err != nil || info.IsDir() == child.file || info.Mode()&os.ModeSymlink != 0 {
			return false
		}
	}
	return true
}

// mountPoint makes an empty file or directory, unless something is there.
func mountPoint(target string, file bool) error {
	if _, err := os.Lstat(target); err == nil {
		return nil
	}
	if !file {
		return os.Mkdir(target, 0o755)
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// devices fills /dev with what a container has; what else the machine has is not shown.
func (b *builder) devices(n *node, target string) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue"} {
		info, err := os.Lstat("/dev/" + name)
		if err != nil || n.children[name] != nil {
			continue
		}
		if err := b.show("/dev/"+name, filepath.Join(target, name), info.Mode().Type()); err != nil {
			return err
		}
	}
	for name, link := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(link, filepath.Join(target, name)); err != nil {
			return err
		}
	}
	return b.fill(n, "", target)
}

// remountReadOnly keeps the flags that the mount has, which may be locked (mount_namespaces(7)).
func remountReadOnly(target string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(target, &fs); err != nil {
		return err
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY)
	for have, flag := range map[int64]uintptr{
		unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV, unix.ST_NOEXEC: unix.MS_NOEXEC,
		unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME,
	} {
		if int64(fs.Flags)&have != 0 {
			flags |= flag
		}
	}
	return unix.Mount("", target, "", flags, "")
}
