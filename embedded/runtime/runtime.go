// Package runtime is a CRI runtime whose containers are processes of this machine: no images to unpack, no cgroups, no
// privileges. Each pod has a shim (package shim) that runs its containers; this package keeps the pods' records, prepares
// their files, and answers the kubelet. It can be closed and opened again at any time without disturbing the pods.
//
// Not enforced, because there is nothing to enforce it with: CPU limits, fsGroup, capabilities and seccomp profiles. Everything
// runs as the one user; where containers have mounts of their own, runAsUser is what they see themselves as, and
// readOnlyRootFilesystem holds. Memory limits are enforced by sampling once a second.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/shim"
	"labkit.dev/embedded/supervise"
)

// Config is what a node gives its runtime.
type Config struct {
	NodeDir     string       // pods/ below it is the runtime's
	ImagesDir   string       // the image store
	ShimPath    string       // the shim program
	PodPrefix   netip.Prefix // pods' addresses, e.g. 198.18.1.0/24
	NodeAddress netip.Addr   // for pods with hostNetwork, e.g. 198.18.1.1
	NodeName    string       // their host name
	// Supervisor is the state directory of the cluster's supervisor, which starts shims outside of our own socket filter;
	// by default from the environment. Without one, shims are our children.
	Supervisor string
	// Links makes containers do without mount namespaces. The environment variable LABKIT_NO_USERNS sets it, too.
	Links bool
	// PodProcesses bounds the processes and threads of each pod (podPidsLimit of the kubelet); 0 is no bound.
	PodProcesses uint64
	Log          *slog.Logger
}

// Runtime implements the CRI for the pods of one node.
type Runtime struct {
	Config
	images    *Images
	streaming *streamServer
	addresses *addresses
	events    events
	closing   context.CancelFunc
	open      context.Context

	mu         sync.Mutex
	sandboxes  map[string]*sandbox
	containers map[string]*container

	usage usageCache

	isolation func() isolation // tried when the first pod starts
}

var _ internalapi.RuntimeService = (*Runtime)(nil)

// New opens the runtime of a node and takes over the pods that are there.
func New(config Config) (*Runtime, error) {
	if config.Supervisor == "" {
		config.Supervisor = os.Getenv(supervise.Variable)
	}
	config.Links = config.Links || os.Getenv("LABKIT_NO_USERNS") != ""
	if config.Log == nil {
		config.Log = slog.Default()
	}
	if !config.PodPrefix.IsValid() || !config.NodeAddress.IsValid() {
		return nil, errors.New("container runtime: the pods' prefix and the node's address are missing")
	}
	for _, path := range []*string{&config.NodeDir, &config.ImagesDir, &config.ShimPath} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = absolute
	}
	if err := os.MkdirAll(filepath.Join(config.NodeDir, "pods"), 0o700); err != nil {
		return nil, err
	}
	r := &Runtime{Config: config, images: &Images{root: config.ImagesDir}, sandboxes: map[string]*sandbox{}, containers: map[string]*container{}}
	r.isolation = sync.OnceValue(r.isolate)
	r.open, r.closing = context.WithCancel(context.Background())
	r.addresses = newAddresses(config.PodPrefix, config.NodeAddress, filepath.Join(config.NodeDir, "last-address"))
	if err := r.adopt(); err != nil {
		return nil, err
	}
	streaming, err := newStreamServer(r)
	if err != nil {
		return nil, fmt.Errorf("streaming server: %w", err)
	}
	r.streaming = streaming
	return r, nil
}

// isolation is how the node's pods are kept apart. It is decided once: a pod that then cannot be started so does not start.
type isolation struct{ mounts, pids, users bool }

// isolate tries what the kernel and the sandbox around us allow.
func (r *Runtime) isolate() (out isolation) {
	if r.Links {
		return out
	}
	try := func(without string, supported func(string) error) bool {
		err := supported(r.ShimPath)
		if err != nil {
			r.Log.Info(without, "reason", err)
		}
		return err == nil
	}
	if out.mounts = try("pods have no mounts of their own", shim.MountsSupported); !out.mounts {
		return out
	}
	out.pids = try("containers see the machine's processes", shim.PidsSupported)
	out.users = try("containers are shown as the node's user", shim.UsersSupported)
	return out
}

// Images is the runtime's image service.
func (r *Runtime) Images() internalapi.ImageManagerService { return r.images }

// Close leaves the pods as they are.
func (r *Runtime) Close(context.Context) error {
	r.closing()
	return r.streaming.close()
}

// version of the runtime; it is reported as containerRuntimeVersion of the node.
const version = "1.0.0"

// Version names the runtime.
func (r *Runtime) Version(context.Context, string) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{Version: "0.1.0", RuntimeName: "labkit", RuntimeVersion: version, RuntimeApiVersion: "v1"}, nil
}

// Status tells that the runtime is ready; there is no network plugin to wait for.
func (r *Runtime) Status(context.Context, bool) (*cri.StatusResponse, error) {
	ready := func(kind string) *cri.RuntimeCondition { return &cri.RuntimeCondition{Type: kind, Status: true} }
	return &cri.StatusResponse{
		Status:          &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{ready(cri.RuntimeReady), ready(cri.NetworkReady)}},
		RuntimeHandlers: []*cri.RuntimeHandler{{Features: &cri.RuntimeHandlerFeatures{}}},
		Features:        &cri.RuntimeFeatures{},
	}, nil
}

// RuntimeConfig tells nothing: there is no cgroup driver.
func (r *Runtime) RuntimeConfig(context.Context) (*cri.RuntimeConfigResponse, error) {
	return &cri.RuntimeConfigResponse{}, nil
}

// UpdateRuntimeConfig takes the pods' range from the node's spec; the runtime has it from its start.
func (r *Runtime) UpdateRuntimeConfig(context.Context, *cri.RuntimeConfig) error { return nil }

// UpdatePodSandboxResources has nothing to do: a pod has no cgroup.
func (r *Runtime) UpdatePodSandboxResources(context.Context, *cri.UpdatePodSandboxResourcesRequest) (*cri.UpdatePodSandboxResourcesResponse, error) {
	return &cri.UpdatePodSandboxResourcesResponse{}, nil
}

var errCheckpoint = errors.New("processes cannot be checkpointed by this runtime")

// CheckpointContainer is not possible.
func (r *Runtime) CheckpointContainer(context.Context, *cri.CheckpointContainerRequest) error {
	return errCheckpoint
}

// CheckpointPod is not possible.
func (r *Runtime) CheckpointPod(context.Context, *cri.CheckpointPodRequest) error {
	return errCheckpoint
}

// RestorePod is not possible.
func (r *Runtime) RestorePod(context.Context, *cri.RestorePodRequest) (*cri.RestorePodResponse, error) {
	return nil, errCheckpoint
}

func now() int64 { return time.Now().UnixNano() }
