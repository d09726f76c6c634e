package shim

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Tmpfs is a volume's directory that is a file system in memory for the pod.
type Tmpfs struct {
	Path    string `json:"path"`
	Options string `json:"options,omitempty"`
}

// mountTmpfs mounts what a container needs in our own mount namespace, of which its own will be a copy. Containers of the pod
// share it, and it goes with the pod.
func (s *server) mountTmpfs(wanted []Tmpfs) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range wanted {
		if s.tmpfs[t.Path] {
			continue
		}
		info, err := os.Stat(t.Path)
		if err != nil {
			return err
		}
		options := fmt.Sprintf("mode=%o", info.Mode().Perm())
		if t.Options != "" {
			options += "," + t.Options
		}
		if err := unix.Mount("labkit", t.Path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
			return fmt.Errorf("mount a tmpfs at %s: %w", t.Path, err)
		}
		s.tmpfs[t.Path] = true
	}
	return nil
}
