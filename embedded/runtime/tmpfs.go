package runtime

import (
	"errors"
	"os"
	"sync"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/shim"
)

// tmpfs are the directories that are to be file systems in memory for the pods that mount them: path → options. The kubelet's
// volume plugins have no other way to tell the runtime than to be in the same process.
var tmpfs sync.Map

// WantTmpfs makes a volume's directory a tmpfs in pods that mount it, with options such as "size=1048576" or none. Where pods
// have no mounts of their own it stays a directory. What was told of directories that are gone is forgotten.
func WantTmpfs(directory, options string) {
	tmpfs.Range(func(known, _ any) bool {
		if _, err := os.Stat(known.(string)); errors.Is(err, os.ErrNotExist) {
			tmpfs.Delete(known)
		}
		return true
	})
	tmpfs.Store(directory, options)
}

func wantedTmpfs(mounts []*cri.Mount) []shim.Tmpfs {
	var out []shim.Tmpfs
	for _, m := range mounts {
		if options, ok := tmpfs.Load(m.HostPath); ok {
			out = append(out, shim.Tmpfs{Path: m.HostPath, Options: options.(string)})
		}
	}
	return out
}
