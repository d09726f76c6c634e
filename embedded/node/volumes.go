package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/configmap"
	"k8s.io/kubernetes/pkg/volume/downwardapi"
	"k8s.io/kubernetes/pkg/volume/emptydir"
	"k8s.io/kubernetes/pkg/volume/hostpath"
	"k8s.io/kubernetes/pkg/volume/image"
	"k8s.io/kubernetes/pkg/volume/local"
	"k8s.io/kubernetes/pkg/volume/projected"
	"k8s.io/kubernetes/pkg/volume/secret"
	"k8s.io/kubernetes/pkg/volume/util/subpath"
	"k8s.io/mount-utils"
)

// volumePlugins are upstream's plugins that need nothing but directories. CSI is left out: there are no drivers, and
// its set-up would delay the node's Ready.
func volumePlugins() []volume.VolumePlugin {
	written := slices.Concat(
		emptydir.ProbeVolumePlugins(), secret.ProbeVolumePlugins(), configmap.ProbeVolumePlugins(),
		downwardapi.ProbeVolumePlugins(), projected.ProbeVolumePlugins(),
	)
	if os.Geteuid() != 0 {
		for i, p := range written {
			written[i] = unownedPlugin{p}
		}
	}
	return slices.Concat(written, image.ProbeVolumePlugins(), local.ProbeVolumePlugins(), hostpath.ProbeVolumePlugins(volume.VolumeConfig{}))
}

// unownedPlugin writes volumes as the user that runs the node: only root could give files to a pod's runAsUser, and the
// pod's processes run as this very user.
type unownedPlugin struct{ volume.VolumePlugin }

func (p unownedPlugin) NewMounter(spec *volume.Spec, pod *v1.Pod) (volume.Mounter, error) {
	m, err := p.VolumePlugin.NewMounter(spec, pod)
	if err != nil {
		return nil, err
	}
	return unownedMounter{m}, nil
}

type unownedMounter struct{ volume.Mounter }

func (m unownedMounter) SetUp(args volume.MounterArgs) error {
	args.FsUser, args.FsGroup = nil, nil
	return m.Mounter.SetUp(args)
}

func (m unownedMounter) SetUpAt(dir string, args volume.MounterArgs) error {
	args.FsUser, args.FsGroup = nil, nil
	return m.Mounter.SetUpAt(dir, args)
}

func (p unownedPlugin) NewUnmounter(name string, pod types.UID) (volume.Unmounter, error) {
	u, err := p.VolumePlugin.NewUnmounter(name, pod)
	if err != nil {
		return nil, err
	}
	return unownedUnmounter{u}, nil
}

// unownedUnmounter removes what upstream's removes as root: also directories that a pod has locked up with their mode.
type unownedUnmounter struct{ volume.Unmounter }

func (u unownedUnmounter) TearDown() error { return u.TearDownAt(u.GetPath()) }

func (u unownedUnmounter) TearDownAt(dir string) error {
	if err := openDirectories(dir); err != nil {
		return err
	}
	return u.Unmounter.TearDownAt(dir)
}

// openDirectories lets this user list and change all directories from root downwards.
func openDirectories(root string) error {
	return filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.Mode()&0o700 == 0o700 {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o700)
	})
}

// linkMounter is mounting without the privilege: a bind mount is a symbolic link in the target's place, a tmpfs is the
// plain directory. It keeps no state: what is mounted can be read from the directories, so a restarted node knows.
type linkMounter struct{}

var _ mount.Interface = linkMounter{}

func (m linkMounter) Mount(source, target, fstype string, options []string) error {
	if !slices.Contains(options, "bind") {
		if fstype == "tmpfs" {
			askTmpfs(target, options)
			return nil
		}
		return fmt.Errorf("mount %s (%s) at %s: this node has no file systems to mount, only directories", source, fstype, target)
	}
	if slices.Contains(options, "remount") {
		return nil // the read-only flag of a bind mount; the runtime applies it where it can
	}
	if old, err := os.Readlink(target); err == nil && old == source {
		return nil
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("bind %s at %s: %w", source, target, err)
	}
	return os.Symlink(source, target)
}

func (m linkMounter) MountSensitive(source, target, fstype string, options, _ []string) error {
	return m.Mount(source, target, fstype, options)
}

func (m linkMounter) MountSensitiveWithoutSystemd(source, target, fstype string, options, _ []string) error {
	return m.Mount(source, target, fstype, options)
}

func (m linkMounter) MountSensitiveWithoutSystemdWithMountFlags(source, target, fstype string, options, _, _ []string) error {
	return m.Mount(source, target, fstype, options)
}

// Unmount puts an empty directory back in the place of a link.
func (m linkMounter) Unmount(target string) error {
	if mounted, err := m.IsMountPoint(target); err != nil || !mounted {
		return err
	}
	if err := os.Remove(target); err != nil {
		return err
	}
	return os.Mkdir(target, 0o750)
}

// IsMountPoint tells whether path is a link that Mount made.
func (m linkMounter) IsMountPoint(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	return info.Mode()&os.ModeSymlink != 0, nil
}

func (m linkMounter) IsLikelyNotMountPoint(path string) (bool, error) {
	mounted, err := m.IsMountPoint(path)
	return !mounted, err
}

func (m linkMounter) CanSafelySkipMountPointCheck() bool             { return false }
func (m linkMounter) List() ([]mount.MountPoint, error)              { return nil, nil }
func (m linkMounter) GetMountRefs(pathname string) ([]string, error) { return nil, nil }

// plainSubpath resolves subPath mounts to the directory or file itself; upstream makes a bind mount of it.
type plainSubpath struct{ subpath.Interface }

func (plainSubpath) CleanSubPaths(string, string) error { return nil }

// PrepareSafeSubpath returns the real path of the subPath, and refuses one that links lead out of its volume.
func (plainSubpath) PrepareSafeSubpath(s subpath.Subpath) (string, func(), error) {
	volumePath, err := filepath.EvalSymlinks(s.VolumePath)
	if err != nil {
		return "", nil, err
	}
	path, err := filepath.EvalSymlinks(s.Path)
	if err != nil {
		return "", nil, err
	}
	if relative, err := filepath.Rel(volumePath, path); err != nil || !filepath.IsLocal(relative) {
		return "", nil, fmt.Errorf("subPath %s leads out of its volume %s", s.Path, s.VolumePath)
	}
	return path, func() {}, nil
}
