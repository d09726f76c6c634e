package node

import (
	"strings"

	"labkit.dev/embedded/runtime"
)

// emptyDirs is the part of a path that volumes of kind emptyDir have; secrets and the like, which the kubelet itself writes,
// are on plain directories.
const emptyDirs = "/kubernetes.io~empty-dir/"

// askTmpfs leaves it to the runtime to mount a tmpfs where the pod sees it: a node has no mounts of its own.
func askTmpfs(target string, options []string) {
	if !strings.Contains(target, emptyDirs) {
		return
	}
	size := ""
	for _, option := range options {
		if strings.HasPrefix(option, "size=") {
			size = option
		}
	}
	runtime.WantTmpfs(target, size)
}
