package runtime

import (
	"context"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/shim"
)

// statsTimeout bounds the wait for one shim; a pod whose shim is slow is left out.
const statsTimeout = 5 * time.Second

// measure asks the shims what containers use; only is a sandbox or nil for all.
func (r *Runtime) measure(ctx context.Context, only *sandbox) map[string]shim.Stats {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	r.mu.Lock()
	var asked []*sandbox
	for _, s := range r.sandboxes {
		if s.Ready && (only == nil || s == only) {
			asked = append(asked, s)
		}
	}
	r.mu.Unlock()
	answers := make(chan map[string]shim.Stats, len(asked))
	for _, s := range asked {
		go func() {
			stats, err := s.shim.Stats(ctx)
			if err != nil {
				r.Log.Debug("no statistics of a pod", "sandbox", s.id, "error", err)
			}
			answers <- stats
		}()
	}
	all := map[string]shim.Stats{}
	for range asked {
		for id, stats := range <-answers {
			all[id] = stats
		}
	}
	return all
}

func value(n uint64) *cri.UInt64Value { return &cri.UInt64Value{Value: n} }

func cpu(at int64, nanos uint64) *cri.CpuUsage {
	return &cri.CpuUsage{Timestamp: at, UsageCoreNanoSeconds: value(nanos)}
}

func memory(at int64, bytes, limit uint64) *cri.MemoryUsage {
	m := &cri.MemoryUsage{Timestamp: at, WorkingSetBytes: value(bytes), UsageBytes: value(bytes), RssBytes: value(bytes)}
	if limit > 0 {
		m.AvailableBytes = value(limit - min(bytes, limit))
	}
	return m
}

func (r *Runtime) containerStats(c *container, s shim.Stats) *cri.ContainerStats {
	at := now()
	bytes, inodes := r.usage.files(c.id, c.dir)
	r.mu.Lock()
	limit := c.Spec.MemoryLimit
	r.mu.Unlock()
	return &cri.ContainerStats{
		Attributes: &cri.ContainerAttributes{Id: c.id, Metadata: c.config.Metadata, Labels: c.config.Labels, Annotations: c.config.Annotations},
		Cpu:        cpu(at, s.CPUNanos), Memory: memory(at, s.Memory, limit),
		WritableLayer: &cri.FilesystemUsage{
			Timestamp: at, FsId: &cri.FilesystemIdentifier{Mountpoint: r.NodeDir}, UsedBytes: value(bytes), InodesUsed: value(inodes),
		},
	}
}

// ContainerStats measures a running container.
func (r *Runtime) ContainerStats(ctx context.Context, id string) (*cri.ContainerStats, error) {
	c, err := r.running(id)
	if err != nil {
		return nil, err
	}
	stats, ok := r.measure(ctx, c.sandbox)[id]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "container %q has just ended", id)
	}
	return r.containerStats(c, stats), nil
}

// ListContainerStats measures the running containers that match a filter.
func (r *Runtime) ListContainerStats(ctx context.Context, f *cri.ContainerStatsFilter) ([]*cri.ContainerStats, error) {
	var only *sandbox
	if f.GetPodSandboxId() != "" {
		s, err := r.sandbox(f.PodSandboxId)
		if err != nil {
			return nil, nil //nolint:nilerr // nothing matches
		}
		only = s
	}
	var out []*cri.ContainerStats
	for id, stats := range r.measure(ctx, only) {
		c, err := r.container(id)
		if err == nil && (f.GetId() == "" || f.Id == id) && matches(f.GetLabelSelector(), c.config.Labels) {
			out = append(out, r.containerStats(c, stats))
		}
	}
	return out, nil
}

// PodSandboxStats measures a pod.
func (r *Runtime) PodSandboxStats(ctx context.Context, id string) (*cri.PodSandboxStats, error) {
	s, err := r.sandbox(id)
	if err != nil {
		return nil, err
	}
	return r.podStats(s, r.measure(ctx, s)), nil
}

// ListPodSandboxStats measures the pods that match a filter.
func (r *Runtime) ListPodSandboxStats(ctx context.Context, f *cri.PodSandboxStatsFilter) ([]*cri.PodSandboxStats, error) {
	stats := r.measure(ctx, nil)
	r.mu.Lock()
	var matching []*sandbox
	for _, s := range r.sandboxes {
		if s.Ready && (f.GetId() == "" || f.Id == s.id) && matches(f.GetLabelSelector(), s.config.Labels) {
			matching = append(matching, s)
		}
	}
	r.mu.Unlock()
	out := make([]*cri.PodSandboxStats, len(matching))
	for i, s := range matching {
		out[i] = r.podStats(s, stats)
	}
	return out, nil
}

func (r *Runtime) podStats(s *sandbox, all map[string]shim.Stats) *cri.PodSandboxStats {
	linux, total, at := &cri.LinuxPodSandboxStats{}, shim.Stats{}, now()
	for id, stats := range all {
		c, err := r.container(id)
		if err != nil || c.sandbox != s {
			continue
		}
		linux.Containers = append(linux.Containers, r.containerStats(c, stats))
		total.CPUNanos += stats.CPUNanos
		total.Memory += stats.Memory
		total.Processes += stats.Processes
	}
	linux.Cpu, linux.Memory = cpu(at, total.CPUNanos), memory(at, total.Memory, 0)
	linux.Process = &cri.ProcessUsage{Timestamp: at, ProcessCount: value(total.Processes)}
	return &cri.PodSandboxStats{
		Attributes: &cri.PodSandboxAttributes{Id: s.id, Metadata: s.config.Metadata, Labels: s.config.Labels, Annotations: s.config.Annotations},
		Linux:      linux,
	}
}

// ListMetricDescriptors lists none: metrics come from the statistics.
func (r *Runtime) ListMetricDescriptors(context.Context) ([]*cri.MetricDescriptor, error) {
	return nil, nil
}

// ListPodSandboxMetrics lists none.
func (r *Runtime) ListPodSandboxMetrics(context.Context) ([]*cri.PodSandboxMetrics, error) {
	return nil, nil
}

// Usage is the CPU time in nanoseconds and the memory in bytes of all running containers of the node.
func (r *Runtime) Usage() (cpuNanos, workingSetBytes uint64) {
	return r.usage.total(func() (cpuNanos, memory uint64) {
		for _, s := range r.measure(r.open, nil) {
			cpuNanos += s.CPUNanos
			memory += s.Memory
		}
		return cpuNanos, memory
	})
}

// usageCache keeps figures that cost something and are asked for more often than they change.
type usageCache struct {
	mu          sync.Mutex
	at          time.Time
	cpu, memory uint64
	directories map[string]directoryUsage
}

type directoryUsage struct {
	at            time.Time
	bytes, inodes uint64
}

const (
	totalAge     = time.Second
	filesAge     = 30 * time.Second
	maxFiles     = 20_000 // a larger directory is counted up to here
	maxRemembers = 4096
)

func (u *usageCache) total(measure func() (cpu, memory uint64)) (cpu, memory uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.at) > totalAge {
		u.cpu, u.memory = measure()
		u.at = time.Now()
	}
	return u.cpu, u.memory
}

// files is the size of a container's own files.
func (u *usageCache) files(id, dir string) (bytes, inodes uint64) {
	u.mu.Lock()
	known, ok := u.directories[id]
	u.mu.Unlock()
	if ok && time.Since(known.at) < filesAge {
		return known.bytes, known.inodes
	}
	fresh := directoryUsage{at: time.Now()}
	_ = filepath.WalkDir(filepath.Join(dir, "own"), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it is gone, or not for us to see
		}
		if fresh.inodes++; fresh.inodes > maxFiles {
			return filepath.SkipAll
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			fresh.bytes += uint64(info.Size())
		}
		return nil
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.directories == nil || len(u.directories) > maxRemembers {
		u.directories = map[string]directoryUsage{}
	}
	u.directories[id] = fresh
	return fresh.bytes, fresh.inodes
}
