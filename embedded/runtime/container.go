package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/shim"
)

// CreateContainer prepares a container's files and remembers how to start it.
func (r *Runtime) CreateContainer(_ context.Context, sandboxID string, config *cri.ContainerConfig, sandboxConfig *cri.PodSandboxConfig) (string, error) {
	s, err := r.sandbox(sandboxID)
	if err != nil {
		return "", err
	}
	if config.GetMetadata() == nil || config.GetImage().GetImage() == "" {
		return "", status.Error(codes.InvalidArgument, "the container has no metadata or no image")
	}
	image, err := r.images.find(config.Image.Image)
	if err != nil {
		return "", err
	}
	c := &container{id: newID(), sandbox: s, config: config, resources: config.GetLinux().GetResources()}
	c.dir = filepath.Join(s.dir, "containers", c.id)
	c.Created, c.ImageID, c.ImageRef = now(), image.Digest, image.reference()
	if config.LogPath != "" {
		c.Log = filepath.Join(logDirectory(sandboxConfig), config.LogPath)
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return "", err
	}
	c.Spec, err = r.prepare(c, image)
	if err == nil {
		err = c.save()
	}
	if err != nil {
		_ = removeAll(c.dir)
		return "", fmt.Errorf("create container %s: %w", config.Metadata.Name, err)
	}
	r.mu.Lock()
	r.containers[c.id] = c
	r.mu.Unlock()
	r.emit(cri.ContainerEventType_CONTAINER_CREATED_EVENT, s, c.id)
	return c.id, nil
}

// StartContainer starts a container. If that fails, the container has ended with reason StartError.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	c, err := r.container(id)
	if err != nil {
		return err
	}
	r.mu.Lock()
	spec := c.Spec // its limit may be changed meanwhile
	r.mu.Unlock()
	err = c.sandbox.shim.Start(ctx, spec)
	if told, ok := shim.ReadStatus(c.sandbox.dir, id); ok {
		r.update(c.sandbox, []shim.Status{told})
	}
	if err != nil {
		return fmt.Errorf("failed to start the process of container %s: %w", c.config.Metadata.Name, err)
	}
	return nil
}

// StopContainer sends the stop signal to the main process and kills the container after timeout seconds.
func (r *Runtime) StopContainer(ctx context.Context, id string, timeout int64) error {
	c, err := r.container(id)
	if err != nil {
		return nil //nolint:nilerr // it is stopped as it is not there
	}
	if r.state(c) != cri.ContainerState_CONTAINER_RUNNING {
		return nil
	}
	err = c.sandbox.shim.Stop(ctx, id, int(c.stopSignal()), time.Duration(timeout)*time.Second)
	return r.settle(ctx, c, err)
}

// settle takes over a container's status after a request to its shim. A shim that is gone has left nothing that runs.
func (r *Runtime) settle(ctx context.Context, c *container, err error) error {
	var gone *shim.GoneError
	if errors.As(err, &gone) {
		select {
		case <-c.sandbox.stopped:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if told, ok := shim.ReadStatus(c.sandbox.dir, c.id); ok {
		r.update(c.sandbox, []shim.Status{told})
	}
	return err
}

// stopSignal is the pod's, or SIGTERM.
func (c *container) stopSignal() syscall.Signal {
	name := strings.TrimPrefix(c.config.GetStopSignal().String(), "SIGNAL_")
	if number := unix.SignalNum(name); number != 0 {
		return number
	}
	// Real-time signals count from the first that C libraries leave to programs, or from the last.
	for base, number := range map[string]int{"SIGRTMIN": 34, "SIGRTMAX": 64} {
		if offset, ok := strings.CutPrefix(name, base); ok {
			n, _ := strconv.Atoi(strings.NewReplacer("PLUS", "", "MINUS", "-").Replace(offset))
			return syscall.Signal(number + n)
		}
	}
	return syscall.SIGTERM
}

// RemoveContainer kills what runs of a container and removes its files; its log stays, as the kubelet wants.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	c, err := r.container(id)
	if err != nil {
		return nil //nolint:nilerr // it is removed as it is not there
	}
	if err := r.settle(ctx, c, c.sandbox.shim.Remove(ctx, id)); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.containers, id)
	r.mu.Unlock()
	r.emit(cri.ContainerEventType_CONTAINER_DELETED_EVENT, c.sandbox, id)
	return removeAll(c.dir)
}

func (r *Runtime) container(id string) (*container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		return c, nil
	}
	return nil, status.Errorf(codes.NotFound, "container %q is not found", id)
}

// running is a container that runs.
func (r *Runtime) running(id string) (*container, error) {
	c, err := r.container(id)
	if err != nil {
		return nil, err
	}
	if state := r.state(c); state != cri.ContainerState_CONTAINER_RUNNING {
		return nil, status.Errorf(codes.FailedPrecondition, "container %q is not running: its state is %s", id, state)
	}
	return c, nil
}

func (r *Runtime) state(c *container) cri.ContainerState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.state()
}

func (c *container) state() cri.ContainerState {
	switch {
	case c.status.FinishedAt != 0:
		return cri.ContainerState_CONTAINER_EXITED
	case c.status.Running:
		return cri.ContainerState_CONTAINER_RUNNING
	}
	return cri.ContainerState_CONTAINER_CREATED
}

// ListContainers lists the containers that match a filter.
func (r *Runtime) ListContainers(_ context.Context, f *cri.ContainerFilter) ([]*cri.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*cri.Container
	for _, c := range r.containers {
		if f.GetId() != "" && f.Id != c.id || f.GetPodSandboxId() != "" && f.PodSandboxId != c.sandbox.id ||
			f.GetState() != nil && f.State.State != c.state() || !matches(f.GetLabelSelector(), c.config.Labels) {
			continue
		}
		out = append(out, &cri.Container{
			Id: c.id, PodSandboxId: c.sandbox.id, Metadata: c.config.Metadata, State: c.state(), CreatedAt: c.Created,
			Image: c.image(), ImageRef: c.ImageRef, ImageId: c.ImageID, Labels: c.config.Labels, Annotations: c.config.Annotations,
		})
	}
	return out, nil
}

// image is the image as the pod names it.
func (c *container) image() *cri.ImageSpec {
	name := c.config.Image.UserSpecifiedImage
	if name == "" {
		name = c.config.Image.Image
	}
	return &cri.ImageSpec{Image: name, UserSpecifiedImage: c.config.Image.UserSpecifiedImage}
}

// ContainerStatus describes a container.
func (r *Runtime) ContainerStatus(_ context.Context, id string, _ bool) (*cri.ContainerStatusResponse, error) {
	c, err := r.container(id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return &cri.ContainerStatusResponse{Status: c.describe()}, nil
}

func (c *container) describe() *cri.ContainerStatus {
	return &cri.ContainerStatus{
		Id: c.id, Metadata: c.config.Metadata, State: c.state(),
		CreatedAt: c.Created, StartedAt: c.status.StartedAt, FinishedAt: c.status.FinishedAt,
		ExitCode: int32(c.status.ExitCode), Reason: c.status.Reason, Message: c.status.Message,
		Image: c.image(), ImageRef: c.ImageRef, ImageId: c.ImageID,
		Labels: c.config.Labels, Annotations: c.config.Annotations, Mounts: c.config.Mounts, LogPath: c.Log,
		Resources: &cri.ContainerResources{Linux: c.resources},
		User:      &cri.ContainerUser{Linux: c.user()},
	}
}

// user is who the container's processes see themselves as.
func (c *container) user() *cri.LinuxContainerUser {
	if u := c.Spec.User; u != nil {
		return &cri.LinuxContainerUser{Uid: int64(u.UID), Gid: int64(u.GID)}
	}
	return &cri.LinuxContainerUser{Uid: int64(os.Getuid()), Gid: int64(os.Getgid())}
}

// UpdateContainerResources changes the memory limit; the CPU's is only recorded.
func (r *Runtime) UpdateContainerResources(ctx context.Context, id string, resources *cri.ContainerResources) error {
	c, err := r.container(id)
	if err != nil {
		return err
	}
	wanted := resources.GetLinux()
	if wanted == nil {
		return nil
	}
	limit := uint64(max(0, wanted.MemoryLimitInBytes))
	if r.state(c) == cri.ContainerState_CONTAINER_RUNNING {
		if err := c.sandbox.shim.SetMemoryLimit(ctx, id, limit); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.resources, c.Spec.MemoryLimit = wanted, limit
	if c.config.Linux == nil {
		c.config.Linux = &cri.LinuxContainerConfig{}
	}
	c.config.Linux.Resources = wanted
	return c.save()
}

// ReopenContainerLog makes the container write to a new log file, after the kubelet has renamed the old one.
func (r *Runtime) ReopenContainerLog(ctx context.Context, id string) error {
	c, err := r.running(id)
	if err != nil {
		return err
	}
	return c.sandbox.shim.ReopenLog(ctx, id)
}
