package shim

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Variables of a container's environment by which its processes are found.
const (
	SandboxVariable   = "LABKIT_SANDBOX_ID"
	ContainerVariable = "LABKIT_CONTAINER_ID"
)

// ticksPerSecond is the unit of times in /proc/PID/stat (USER_HZ, 100 on every architecture that Go runs on).
const ticksPerSecond = 100

// process is a line of /proc/PID/stat.
type process struct {
	pid, parent, session int
	zombie               bool
	cpu                  time.Duration // its own and that of the children it has waited for
	owner                string        // container
}

func readProcess(pid int) (process, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	end := bytes.LastIndexByte(text, ')')
	if err != nil || end < 0 {
		return process{}, false
	}
	f := strings.Fields(string(text[end+1:]))
	if len(f) < 15 {
		return process{}, false
	}
	number := func(i int) int { n, _ := strconv.Atoi(f[i]); return n }
	inTicks := func(ticks int) time.Duration { return time.Duration(ticks) * time.Second / ticksPerSecond }
	own, err := clock(pid)
	if err != nil {
		own = inTicks(number(11) + number(12))
	}
	return process{
		pid: pid, parent: number(1), session: number(3), zombie: f[0] == "Z" || f[0] == "X",
		cpu: own + inTicks(number(13)+number(14)),
	}, true
}

// clock is the CPU time of a process and all its threads, to the nanosecond: metrics-server leaves out a pod one of whose
// containers has used no time, and a program that waits needs less than a tick to start. See clock_getcpuclockid(3).
func clock(pid int) (time.Duration, error) {
	const ofProcess = 2 // CPUCLOCK_SCHED
	var at unix.Timespec
	err := unix.ClockGettime(int32(^uint32(pid)<<3|ofProcess), &at)
	return time.Duration(at.Nano()), err
}

// pids lists the machine's processes.
func pids() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	out := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// Owners other than containers.
const (
	foreign = ""  // not of this pod
	unclear = "?" // of this pod, and not known yet of which container
)

// table knows the processes of the pod: the descendants of the shim. As it adopts orphans, none gets out of its sight.
// Each process of the machine is looked at once, and those of the pod each time.
type table struct {
	self   int
	lookup func(process) string // container of a process whose parent does not tell

	mu    sync.Mutex
	owner map[int]string
	last  int // highest process id seen, to notice when they begin anew
}

func newTable(lookup func(process) string) *table {
	return &table{self: os.Getpid(), lookup: lookup, owner: map[int]string{}}
}

// claim tells that a process is a container's.
func (t *table) claim(pid int, container string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owner[pid] = container
}

// ownerOf is the container that a process was last seen in, or "".
func (t *table) ownerOf(pid int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.owner[pid]
}

// scan lists the processes of the pod.
func (t *table) scan() []process {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetReused()
	present := pids()
	var ours []process
	seen := make(map[int]string, len(present))
	for _, pid := range present { // parents mostly come before their children
		if owner, known := t.owner[pid]; known && owner == foreign || pid == t.self {
			seen[pid] = foreign
			continue
		}
		p, ok := readProcess(pid)
		if !ok {
			continue
		}
		p.owner = t.classify(p)
		t.owner[pid], seen[pid] = p.owner, p.owner
		if p.owner != foreign {
			ours = append(ours, p)
		}
	}
	t.owner = seen
	return ours
}

// forgetReused drops what is known of other processes when process ids have wrapped around: an id may be another's then.
func (t *table) forgetReused() {
	text, _ := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	last := 0
	if len(fields) > 0 {
		last, _ = strconv.Atoi(fields[len(fields)-1])
	}
	if last < t.last {
		for pid, owner := range t.owner {
			if owner == foreign {
				delete(t.owner, pid)
			}
		}
	}
	t.last = last
}

// classify finds the container of a process: the one it was claimed for, its parent's, or what its marks tell.
func (t *table) classify(p process) string {
	if owner, known := t.owner[p.pid]; known && owner != unclear {
		return owner
	}
	if p.parent == t.self {
		if owner := t.lookup(p); owner != "" {
			return owner
		}
		return unclear
	}
	owner, known := t.owner[p.parent]
	for step, at := 0, p.parent; !known && at > 1 && step < 64; step++ { // a parent with a higher id than its child
		parent, ok := readProcess(at)
		if !ok {
			break
		}
		if parent.parent == t.self {
			return t.lookup(parent)
		}
		at = parent.parent
		owner, known = t.owner[at]
	}
	return owner
}

// kill kills the processes of a container, or of the whole pod, until none is left; false when some are after the time.
func (t *table) kill(container string, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		alive := 0
		for _, p := range t.scan() {
			if !p.zombie && (container == "" || p.owner == container) {
				alive++
				_ = syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
		if alive == 0 {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
}

// variable reads a variable of a process's environment as it was when its program started.
func variable(pid int, name string) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	for _, entry := range bytes.Split(text, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}

// mountNS is the inode of a process's mount namespace; 0 when it may not be seen.
func mountNS(pid int) uint64 {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid), &st) != nil {
		return 0
	}
	return st.Ino
}

// memory is the bytes that a process holds and shares with no other: anonymous and shared memory in proportion, or, where the
// kernel does not tell, resident less shared pages.
func memory(pid int, exact bool) uint64 {
	if exact {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)); err == nil {
			return kilobytes(text, "Pss_Anon:") + kilobytes(text, "Pss_Shmem:")
		}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(text))
	if err != nil || len(f) < 3 {
		return 0
	}
	resident, _ := strconv.ParseUint(f[1], 10, 64)
	shared, _ := strconv.ParseUint(f[2], 10, 64)
	return (resident - min(shared, resident)) * uint64(os.Getpagesize())
}

func kilobytes(text []byte, field string) uint64 {
	_, rest, ok := strings.Cut(string(text), field)
	f := strings.Fields(rest)
	if !ok || len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseUint(f[0], 10, 64)
	return n << 10
}
