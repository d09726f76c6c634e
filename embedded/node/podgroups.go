package node

import (
	"cmp"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/utils/ptr"
)

// podGroups stands for the pods' cgroups: it remembers the settings that the kubelet reads back when it resizes a pod
// in place, and enforces none of them.
type podGroups struct {
	cm.PodContainerManager
	mu      sync.Mutex
	resized map[types.UID]cm.ResourceConfig
}

func newPodGroups(stub cm.ContainerManager) *podGroups {
	return &podGroups{PodContainerManager: stub.NewPodContainerManager(), resized: map[types.UID]cm.ResourceConfig{}}
}

// cfsPeriod is the default period of CPU quotas in microseconds.
const cfsPeriod = 100_000

// GetPodCgroupConfig returns the part of the pod's settings that is about resource (cpu or memory).
func (g *podGroups) GetPodCgroupConfig(pod *v1.Pod, resource v1.ResourceName) (*cm.ResourceConfig, error) {
	g.mu.Lock()
	current := g.current(pod)
	g.mu.Unlock()
	if resource == v1.ResourceMemory {
		return &cm.ResourceConfig{Memory: current.Memory}, nil
	}
	return &cm.ResourceConfig{CPUShares: current.CPUShares, CPUQuota: current.CPUQuota, CPUPeriod: current.CPUPeriod}, nil
}

func (g *podGroups) current(pod *v1.Pod) cm.ResourceConfig {
	if known, ok := g.resized[pod.UID]; ok {
		return known
	}
	// A cgroup without a setting has these values; the kubelet expects all of them.
	config := cm.ResourceConfig{Memory: ptr.To[int64](-1), CPUShares: ptr.To[uint64](cm.MinShares), CPUQuota: ptr.To[int64](-1), CPUPeriod: ptr.To[uint64](cfsPeriod)}
	if known := cm.ResourceConfigForPod(pod, true, cfsPeriod, false, kubeletconfig.NoneMemoryReservationPolicy); known != nil {
		merge(&config, known)
	}
	return config
}

// merge puts the settings that from has into config.
func merge(config, from *cm.ResourceConfig) {
	config.Memory = cmp.Or(from.Memory, config.Memory)
	config.CPUQuota = cmp.Or(from.CPUQuota, config.CPUQuota)
	config.CPUShares = cmp.Or(from.CPUShares, config.CPUShares)
	config.CPUPeriod = cmp.Or(from.CPUPeriod, config.CPUPeriod)
}

// SetPodCgroupConfig remembers the settings given; others stay.
func (g *podGroups) SetPodCgroupConfig(_ klog.Logger, pod *v1.Pod, config *cm.ResourceConfig) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	current := g.current(pod)
	merge(&current, config)
	g.resized[pod.UID] = current
	return nil
}
