package node

import (
	"context"
	"fmt"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	internalapi "k8s.io/cri-api/pkg/apis"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/cadvisor"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubelet/config"
	"k8s.io/kubernetes/pkg/kubelet/eviction"
	evictionapi "k8s.io/kubernetes/pkg/kubelet/eviction/api"
	"k8s.io/kubernetes/pkg/kubelet/status"
)

// containerManager is upstream's stub (no cgroups, no devices) that honours the reservations of the kubelet's
// configuration: Node Allocatable = capacity − kubeReserved − systemReserved − hard eviction thresholds, and a
// configuration that reserves more than there is makes the kubelet fail, both as in pkg/kubelet/cm.
type containerManager struct {
	cm.ContainerManager
	capacity   v1.ResourceList
	reserved   v1.ResourceList // kubeReserved + systemReserved
	thresholds []evictionapi.Threshold
	groups     *podGroups
}

func newContainerManager(c *kubeletconfig.KubeletConfiguration, stats *machineStats) (*containerManager, error) {
	machine, err := stats.MachineInfo(klog.Background())
	if err != nil {
		return nil, err
	}
	disk, err := stats.RootFsInfo()
	if err != nil {
		return nil, err
	}
	capacity := cadvisor.CapacityFromMachineInfo(machine)
	capacity[v1.ResourceEphemeralStorage] = *resource.NewQuantity(int64(disk.Capacity), resource.BinarySI)
	reserved := v1.ResourceList{}
	for flag, values := range map[string]map[string]string{"kubeReserved": c.KubeReserved, "systemReserved": c.SystemReserved} {
		for name, text := range values {
			amount, err := resource.ParseQuantity(text)
			if err != nil || amount.Sign() < 0 {
				return nil, fmt.Errorf("%s: %q is no amount of %s", flag, text, name)
			}
			sum := reserved[v1.ResourceName(name)]
			sum.Add(amount)
			reserved[v1.ResourceName(name)] = sum
		}
	}
	stub := cm.NewStubContainerManager()
	manager := &containerManager{ContainerManager: stub, capacity: capacity, reserved: reserved, groups: newPodGroups(stub)}
	allocatable := manager.GetNodeAllocatableAbsolute()[v1.ResourceMemory]
	stats.podsLimit = uint64(allocatable.Value())
	manager.thresholds, err = eviction.ParseThresholdConfig(nil, c.EvictionHard, nil, nil, nil)
	return manager, err
}

// GetPodCgroupRoot names the group of all pods in the statistics; see machineStats.
func (m *containerManager) GetPodCgroupRoot() string { return podsGroup }

func (m *containerManager) NewPodContainerManager() cm.PodContainerManager { return m.groups }

func (m *containerManager) GetCapacity(_ klog.Logger, localStorage bool) v1.ResourceList {
	if !localStorage {
		return v1.ResourceList{}
	}
	return v1.ResourceList{v1.ResourceEphemeralStorage: m.capacity[v1.ResourceEphemeralStorage]}
}

// GetNodeAllocatableReservation is what is kept from pods.
func (m *containerManager) GetNodeAllocatableReservation() v1.ResourceList {
	out := v1.ResourceList{}
	for name, capacity := range m.capacity {
		sum := m.reserved[name].DeepCopy()
		for _, t := range m.thresholds {
			if t.Operator == evictionapi.OpLessThan && thresholdResource(t.Signal) == name {
				sum.Add(*evictionapi.GetThresholdQuantity(t.Value, &capacity))
			}
		}
		if !sum.IsZero() {
			out[name] = sum
		}
	}
	return out
}

// thresholdResource is the resource that a hard eviction threshold keeps from pods, as in pkg/kubelet/cm/helpers.go.
func thresholdResource(signal evictionapi.Signal) v1.ResourceName {
	switch signal {
	case evictionapi.SignalMemoryAvailable:
		return v1.ResourceMemory
	case evictionapi.SignalNodeFsAvailable:
		return v1.ResourceEphemeralStorage
	}
	return ""
}

// GetNodeAllocatableAbsolute is capacity less the reservations, eviction thresholds not counted.
func (m *containerManager) GetNodeAllocatableAbsolute() v1.ResourceList {
	out := v1.ResourceList{}
	for name, capacity := range m.capacity {
		left := capacity.DeepCopy()
		left.Sub(m.reserved[name])
		if left.Sign() < 0 {
			left.Set(0)
		}
		out[name] = left
	}
	return out
}

// Start refuses, as upstream does, a configuration that reserves more than the machine has.
func (m *containerManager) Start(ctx context.Context, n *v1.Node, pods cm.ActivePodsFunc, get cm.GetNodeFunc, ready config.SourcesReady,
	provider status.PodStatusProvider, runtime internalapi.RuntimeService, localStorage bool) error {
	var wrong []string
	for name, reserved := range m.GetNodeAllocatableReservation() {
		if capacity := m.capacity[name]; reserved.Cmp(capacity) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %v is reserved, the node has %v.", name, &reserved, &capacity))
		}
	}
	if len(wrong) > 0 {
		sort.Strings(wrong)
		return fmt.Errorf("invalid Node Allocatable configuration. %s", strings.Join(wrong, " "))
	}
	return m.ContainerManager.Start(ctx, n, pods, get, ready, provider, runtime, localStorage)
}
