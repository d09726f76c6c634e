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
	"labkit.dev/embedded/sockets"
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
	identity
	parent    int
	zombie    bool
	cpu       time.Duration // its own and that of the children it has waited for
	owner     string        // container
	ownerless bool          // it is there for the container and no part of it: a keeper
}

func readProcess(pid int) (process, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	end := bytes.LastIndexByte(text, ')')
	if err != nil || end < 0 {
		return process{}, false
	}
	f := strings.Fields(string(text[end+1:]))
	if len(f) < 20 {
		return process{}, false
	}
	number := func(i int) int { n, _ := strconv.Atoi(f[i]); return n }
	inTicks := func(ticks int) time.Duration { return time.Duration(ticks) * time.Second / ticksPerSecond }
	own, err := clock(pid)
	if err != nil {
		own = inTicks(number(11) + number(12))
	}
	started, err := strconv.ParseUint(f[19], 10, 64)
	return process{
		identity: identity{pid, started}, parent: number(1), zombie: f[0] == "Z" || f[0] == "X",
		cpu: own + inTicks(number(13)+number(14)),
	}, err == nil
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

// unclear owns processes of the pod of which it is not known (yet) whose they are.
const unclear = "?"

// table knows the processes of the pod: the descendants of the shim. As it adopts orphans, none gets out of its sight.
type table struct {
	self   int
	lookup func(process) string // container of a child of ours that nobody has claimed

	mu      sync.Mutex
	claimed map[identity]claim
	known   map[identity]string // owners as of the last scan
}

// claim is what is known of a process from its start.
type claim struct {
	owner string
	aside bool // no part of the container: its children are
}

func newTable(lookup func(process) string) *table {
	return &table{self: os.Getpid(), lookup: lookup, claimed: map[identity]claim{}, known: map[identity]string{}}
}

// claim tells that a child of ours is a container's. It must not be waited for meanwhile.
func (t *table) claim(pid int, c claim) identity {
	i, ok := identify(pid)
	if ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.claimed[i] = c
	}
	return i
}

// ownerOf is the container of a process, as far as it is known, or "".
func (t *table) ownerOf(i identity) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.claimed[i]; ok {
		return c.owner
	}
	return t.known[i]
}

// scan lists the processes of the pod, by going from each to its children.
func (t *table) scan() []process {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ours []process
	present := map[identity]string{}
	var walk func(parent process)
	walk = func(parent process) {
		begin := len(ours)
		for _, pid := range sockets.Children(parent.Pid) {
			p, ok := readProcess(pid)
			if !ok || p.parent != parent.Pid || present[p.identity] != "" { // it has ended, or is another's by now
				continue
			}
			p.owner = parent.owner
			c, claimed := t.claimed[p.identity]
			switch {
			case claimed:
				p.owner, p.ownerless = c.owner, c.aside
			case parent.owner == "":
				p.owner = t.unclaimed(p)
			}
			present[p.identity] = p.owner
			ours = append(ours, p)
		}
		if parent.Pid != t.self && !parent.exists() { // its number was given to another one: so may be its children
			for _, p := range ours[begin:] {
				delete(present, p.identity)
			}
			ours = ours[:begin]
			return
		}
		for _, p := range ours[begin:] {
			if !p.zombie {
				walk(p)
			}
		}
	}
	walk(process{identity: identity{Pid: t.self}})
	for i := range t.claimed {
		if present[i] == "" && !i.exists() {
			delete(t.claimed, i)
		}
	}
	t.known = present
	return ours
}

// unclaimed is the owner of an orphan that this process or the pod's first process has adopted.
func (t *table) unclaimed(p process) string {
	if owner := t.known[p.identity]; owner != "" && owner != unclear {
		return owner
	}
	if owner := t.lookup(p); owner != "" {
		return owner
	}
	return unclear
}

// kill kills the processes of a container, or of the whole pod, until none is left; false when some are after the time. Each is
// looked for twice, as one that forks and ends between two looks is in neither list.
func (t *table) kill(container string, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	missed := 0
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		alive := 0
		for _, p := range t.scan() {
			if p.zombie || container != "" && p.owner != container {
				continue
			}
			alive++
			// Keepers end by themselves, after all that is theirs; the end of the pod's first process is that of its namespace.
			if !p.ownerless || p.owner == "" || time.Until(deadline) < limit/2 {
				_ = p.signal(syscall.SIGKILL)
			}
		}
		if alive > 0 {
			missed = 0
		} else if missed++; missed == 2 {
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

// mountNS is the inode of a process's mount namespace; 0 when it may not be seen. It says which one only while that is held open:
// the number is given to another namespace later.
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
