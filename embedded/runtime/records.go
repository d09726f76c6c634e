package runtime

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/shim"
)

// sandbox is a pod.
type sandbox struct {
	id, dir string
	config  *cri.PodSandboxConfig
	sandboxRecord
	shim   shim.Client
	mounts bool // containers have mount namespaces of their own

	stopped chan struct{} // closed when the runtime does not watch the shim any longer
	ending  sync.Mutex    // held while the pod is stopped
}

// sandboxRecord is what is kept of a pod besides its config: pods/ID/sandbox.json.
type sandboxRecord struct {
	Created     int64      `json:"created"` // nanoseconds since 1970
	Address     netip.Addr `json:"address"`
	Hostname    string     `json:"hostname"`
	HostNetwork bool       `json:"host_network,omitempty"`
	Ready       bool       `json:"ready"`
	Handler     string     `json:"handler,omitempty"`
}

// container is a container of a pod.
type container struct {
	id, dir string
	sandbox *sandbox
	config  *cri.ContainerConfig
	containerRecord
	status    shim.Status // as far as known; empty before its start
	resources *cri.LinuxContainerResources
}

// containerRecord is what is kept of a container besides its config: pods/ID/containers/ID/container.json.
type containerRecord struct {
	Created  int64          `json:"created"`
	ImageID  string         `json:"image_id"`
	ImageRef string         `json:"image_ref"`
	Log      string         `json:"log"`
	Spec     shim.Container `json:"spec"`
	// Without mount namespaces: the paths that are rewritten in commands, and those below them that are not.
	Rewrite []string `json:"rewrite,omitempty"`
	Keep    []string `json:"keep,omitempty"`
}

func newID() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

// record is the form of both files.
type record[T any] struct {
	Config json.RawMessage `json:"config"`
	Rest   T               `json:"record"`
}

// writeRecord replaces a record whole or not at all.
func writeRecord[T any](path string, config proto.Message, rest T) error {
	text, err := protojson.Marshal(config)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(record[T]{text, rest})
	if err != nil {
		return err
	}
	return shim.WriteFile(path, raw)
}

func readRecord[T any](path string, config proto.Message, rest *T) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r record[T]
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	*rest = r.Rest
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(r.Config, config)
}

func (s *sandbox) save() error {
	return writeRecord(filepath.Join(s.dir, "sandbox.json"), s.config, s.sandboxRecord)
}

func (c *container) save() error {
	return writeRecord(filepath.Join(c.dir, "container.json"), c.config, c.containerRecord)
}

// adopt takes over the pods of an earlier runtime. What was not made to the end is removed.
func (r *Runtime) adopt() error {
	pods := filepath.Join(r.NodeDir, "pods")
	entries, err := os.ReadDir(pods)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	for _, entry := range entries {
		group.Go(func() {
			dir := filepath.Join(pods, entry.Name())
			if err := r.adoptSandbox(entry.Name(), dir); err != nil {
				r.Log.Warn("a pod that cannot be read is removed", "sandbox", entry.Name(), "error", err)
				_ = removeAll(dir)
			}
		})
	}
	group.Wait()
	return nil
}

func (r *Runtime) adoptSandbox(id, dir string) error {
	s := &sandbox{id: id, dir: dir, config: &cri.PodSandboxConfig{}, shim: shim.Client{Dir: dir}, stopped: make(chan struct{})}
	if err := readRecord(filepath.Join(dir, "sandbox.json"), s.config, &s.sandboxRecord); err != nil {
		_, _ = shim.Sweep(dir)
		return err
	}
	if state, err := s.shim.ReadState(); err == nil {
		s.mounts = state.Mounts
	}
	entries, err := os.ReadDir(filepath.Join(dir, "containers"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r.mu.Lock()
	r.sandboxes[id] = s
	for _, entry := range entries {
		c := &container{id: entry.Name(), dir: filepath.Join(dir, "containers", entry.Name()), sandbox: s, config: &cri.ContainerConfig{}}
		if err := readRecord(filepath.Join(c.dir, "container.json"), c.config, &c.containerRecord); err != nil {
			r.Log.Warn("a container that cannot be read is removed", "container", c.id, "error", err)
			_ = removeAll(c.dir)
			continue
		}
		c.resources = c.config.GetLinux().GetResources()
		c.status, _ = shim.ReadStatus(dir, c.id)
		r.containers[c.id] = c
	}
	r.mu.Unlock()
	if s.Ready && !s.HostNetwork {
		r.addresses.keep(s.Address)
	}
	if s.Ready {
		r.follow(s)
	} else {
		close(s.stopped)
	}
	return nil
}

// removeAll removes a directory and all that is in it, also directories that a pod has locked up with their mode. Only root
// could remove those as they are.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, os.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, entry os.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
