package node

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	cadvisorapi "github.com/google/cadvisor/lib/model"
	"golang.org/x/sys/unix"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cadvisor"
)

// Machine is what a node claims to be: its capacity as asked for, not the host's.
type Machine struct {
	Name        string
	CPUs        int   // cores
	MemoryBytes int64 // bytes
	RootDir     string
	ImagesDir   string
}

// Usage is what the kubelet's statistics need of a container runtime.
type Usage interface {
	internalapi.ContainerStatsManager
	ListContainers(ctx context.Context, filter *cri.ContainerFilter) ([]*cri.Container, error)
	// Usage returns the CPU time in nanoseconds and the working set in bytes of all pods of the node.
	Usage() (cpuNanos, workingSetBytes uint64)
}

// podsGroup is the name of the group of all pods.
const podsGroup = "/kubepods"

// machineStats answers the kubelet's questions to cAdvisor from the runtime and the declared machine: no cgroup and no
// other process of the host is looked at. The machine's usage is its pods' and this process's own.
type machineStats struct {
	machine Machine
	usage   Usage
	started time.Time

	podsLimit uint64 // bytes of memory that all pods together may use

	mu        sync.Mutex
	podsTotal uint64 // nanoseconds
	podsLast  uint64 // nanoseconds, as the runtime last said
	cpuRate   uint64 // nanocores over the last interval
	rateAt    time.Time
	rateFrom  uint64 // nanoseconds
}

var _ cadvisor.Interface = (*machineStats)(nil)

func newMachineStats(machine Machine, usage Usage) *machineStats {
	return &machineStats{machine: machine, usage: usage, started: time.Now()}
}

func (m *machineStats) Start() error { return nil }

func (m *machineStats) MachineInfo(klog.Logger) (*cadvisorapi.MachineInfo, error) {
	bootID, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return &cadvisorapi.MachineInfo{
		NumCores: m.machine.CPUs, NumPhysicalCores: m.machine.CPUs, NumSockets: 1,
		MemoryCapacity: uint64(m.machine.MemoryBytes),
		MachineID:      m.machine.Name, SystemUUID: m.machine.Name,
		BootID: strings.TrimSpace(string(bootID)),
	}, nil
}

func (m *machineStats) VersionInfo() (*cadvisorapi.VersionInfo, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, err
	}
	return &cadvisorapi.VersionInfo{
		KernelVersion:      unix.ByteSliceToString(uts.Release[:]),
		ContainerOsVersion: "labkit (processes on " + osName() + ")",
	}, nil
}

// osName is the host's name from os-release, as a real node's osImage would show it.
func osName() string {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for _, line := range strings.Split(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return "Linux"
}

// ContainerInfoV2 answers for the whole machine and for the group of all pods; per-container statistics come through CRI.
func (m *machineStats) ContainerInfoV2(name string, _ cadvisorapi.RequestOptions) (map[string]cadvisorapi.ContainerInfo, error) {
	switch name {
	case "/":
		return map[string]cadvisorapi.ContainerInfo{name: *m.root()}, nil
	case podsGroup:
		return map[string]cadvisorapi.ContainerInfo{name: *m.pods()}, nil
	}
	return nil, fmt.Errorf("no statistics of %q: there are no cgroups on this node", name)
}

// GetRequestedContainersInfo lists the machine and every running container, for /metrics/cadvisor.
func (m *machineStats) GetRequestedContainersInfo(string, cadvisorapi.RequestOptions) (map[string]*cadvisorapi.ContainerInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	containers, err := m.usage.ListContainers(ctx, nil)
	if err != nil {
		return nil, err
	}
	stats, err := m.usage.ListContainerStats(ctx, nil)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*cri.Container, len(containers))
	for _, c := range containers {
		byID[c.Id] = c
	}
	infos := map[string]*cadvisorapi.ContainerInfo{"/": m.root()}
	for _, s := range stats {
		if c := byID[s.GetAttributes().GetId()]; c != nil {
			info := containerInfo(c, s)
			infos[info.Name] = info
		}
	}
	return infos, nil
}

func containerInfo(c *cri.Container, s *cri.ContainerStats) *cadvisorapi.ContainerInfo {
	created := time.Unix(0, c.CreatedAt)
	memory := s.GetMemory().GetWorkingSetBytes().GetValue()
	return &cadvisorapi.ContainerInfo{
		ContainerReference: cadvisorapi.ContainerReference{Id: c.Id, Name: "/pods/" + c.PodSandboxId + "/" + c.Id, Aliases: []string{c.Id}},
		Spec: cadvisorapi.ContainerSpec{
			CreationTime: created, StartTime: created, Labels: c.Labels, Image: c.GetImage().GetImage(), HasCpu: true, HasMemory: true,
		},
		Stats: []*cadvisorapi.ContainerStats{sample(time.Unix(0, s.GetCpu().GetTimestamp()), s.GetCpu().GetUsageCoreNanoSeconds().GetValue(), memory)},
	}
}

func sample(at time.Time, cpuNanos, memory uint64) *cadvisorapi.ContainerStats {
	return &cadvisorapi.ContainerStats{
		Timestamp: at,
		Cpu:       &cadvisorapi.CpuStats{Usage: cadvisorapi.CpuUsage{Total: cpuNanos, User: cpuNanos}},
		Memory:    &cadvisorapi.MemoryStats{Usage: memory, WorkingSet: memory, RSS: memory},
	}
}

// root is the machine as one container whose memory limit is the declared capacity, so that the eviction signal
// memory.available is capacity − usage.
func (m *machineStats) root() *cadvisorapi.ContainerInfo {
	podsCPU, memory := m.podsUsage()
	ownCPU, ownMemory := ownUsage()
	now, total := time.Now(), podsCPU+ownCPU
	m.mu.Lock()
	if elapsed := now.Sub(m.rateAt); elapsed >= time.Second {
		if !m.rateAt.IsZero() {
			m.cpuRate = uint64(float64(total-m.rateFrom) / elapsed.Seconds())
		}
		m.rateAt, m.rateFrom = now, total
	}
	rate := m.cpuRate
	m.mu.Unlock()
	info := m.group("/", uint64(m.machine.MemoryBytes), sample(now, total, min(memory+ownMemory, uint64(m.machine.MemoryBytes))))
	info.Stats[0].CpuInst = &cadvisorapi.CpuInstStats{Usage: cadvisorapi.CpuInstUsage{Total: rate}}
	return info
}

// pods is the group of all pods, limited to what the reservations leave: the signal allocatableMemory.available.
func (m *machineStats) pods() *cadvisorapi.ContainerInfo {
	cpu, memory := m.podsUsage()
	return m.group(podsGroup, m.podsLimit, sample(time.Now(), cpu, min(memory, m.podsLimit)))
}

func (m *machineStats) group(name string, limit uint64, point *cadvisorapi.ContainerStats) *cadvisorapi.ContainerInfo {
	return &cadvisorapi.ContainerInfo{
		ContainerReference: cadvisorapi.ContainerReference{Name: name},
		Spec: cadvisorapi.ContainerSpec{CreationTime: m.started, StartTime: m.started, HasCpu: true, HasMemory: true,
			Memory: cadvisorapi.MemorySpec{Limit: limit}},
		Stats: []*cadvisorapi.ContainerStats{point},
	}
}

// podsUsage is all pods' CPU time, which never decreases when a pod goes, and their memory.
func (m *machineStats) podsUsage() (cpuNanos, memory uint64) {
	cpu, memory := m.usage.Usage()
	m.mu.Lock()
	defer m.mu.Unlock()
	if cpu > m.podsLast {
		m.podsTotal += cpu - m.podsLast
	}
	m.podsLast = cpu
	return m.podsTotal, memory
}

// ownUsage is the CPU time in nanoseconds and the private resident memory in bytes of this process.
func ownUsage() (cpuNanos, memory uint64) {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		cpuNanos = uint64(r.Utime.Nano() + r.Stime.Nano())
	}
	text, err := os.ReadFile("/proc/self/statm")
	if fields := strings.Fields(string(text)); err == nil && len(fields) > 2 {
		resident, _ := strconv.ParseUint(fields[1], 10, 64)
		shared, _ := strconv.ParseUint(fields[2], 10, 64)
		memory = (resident - min(shared, resident)) * uint64(os.Getpagesize())
	}
	return cpuNanos, memory
}

func (m *machineStats) RootFsInfo() (cadvisorapi.FsInfo, error) { return fsInfo(m.machine.RootDir) }
func (m *machineStats) ImagesFsInfo(context.Context) (cadvisorapi.FsInfo, error) {
	return fsInfo(m.machine.ImagesDir)
}

// ContainerFsInfo is the file system of the containers' writable files, which live in the node's directory.
func (m *machineStats) ContainerFsInfo(context.Context) (cadvisorapi.FsInfo, error) {
	return fsInfo(m.machine.ImagesDir)
}
func (m *machineStats) GetDirFsInfo(path string) (cadvisorapi.FsInfo, error) { return fsInfo(path) }

// fsInfo describes the file system that holds path.
func fsInfo(path string) (cadvisorapi.FsInfo, error) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := unix.Statfs(path, &fs); err != nil {
		return cadvisorapi.FsInfo{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	if err := unix.Stat(path, &st); err != nil {
		return cadvisorapi.FsInfo{}, fmt.Errorf("stat %s: %w", path, err)
	}
	block := uint64(fs.Bsize)
	inodes, free := fs.Files, fs.Ffree
	return cadvisorapi.FsInfo{
		Timestamp: time.Now(), Device: fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), Mountpoint: path,
		Capacity: fs.Blocks * block, Available: fs.Bavail * block, Usage: (fs.Blocks - fs.Bfree) * block,
		Inodes: &inodes, InodesFree: &free,
	}, nil
}
