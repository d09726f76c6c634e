package shim

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"
)

// sample kills containers that use more memory than their limit, and the largest one of a pod with too many processes. It looks
// once a second: there is no cgroup that would stop them at once.
func (s *server) sample() {
	for range time.Tick(time.Second) {
		for c, limit := range s.limited() {
			total := uint64(0)
			for _, p := range s.processes.scan() {
				if p.owner == c.spec.ID && !p.ownerless {
					total += memory(p.Pid, false)
				}
			}
			if total > limit && s.measure(c.spec.ID)[c.spec.ID].Memory > limit {
				c.mu.Lock()
				c.oom = true
				c.mu.Unlock()
				s.killAll(c)
			}
		}
		if s.pod.Processes > 0 {
			s.boundProcesses()
		}
	}
}

// limited are the running containers with a memory limit, and their limits in bytes.
func (s *server) limited() map[*container]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[*container]uint64{}
	for _, c := range s.containers {
		c.mu.Lock()
		if c.status.Running && c.limit > 0 {
			out[c] = c.limit
		}
		c.mu.Unlock()
	}
	return out
}

// boundProcesses kills the container with the most tasks (processes and threads) of a pod that has more than its limit.
func (s *server) boundProcesses() {
	total, tasks, most := uint64(0), map[string]uint64{}, ""
	for _, p := range s.processes.scan() {
		if p.ownerless {
			continue
		}
		entries, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.Pid))
		n := uint64(max(1, len(entries)))
		total += n
		if tasks[p.owner] += n; most == "" || tasks[p.owner] > tasks[most] {
			most = p.owner
		}
	}
	if c := s.find(most); total > s.pod.Processes && c != nil {
		log.Printf("container %s has %d of the pod's %d processes and threads, more than the limit of %d, and is killed",
			most, tasks[most], total, s.pod.Processes)
		s.killAll(c)
	}
}

// processLimit is the limit for a program's own limit, RLIMIT_NPROC, where that is one for the pod: it counts the processes and
// threads of a user in a user namespace, which the pod has for itself where a plain user runs it. Our own threads count too.
func (s *server) processLimit() uint64 {
	if s.pod.Processes == 0 || !s.state.Limits {
		return 0
	}
	threads, _ := filepath.Glob("/proc/self/task/*")
	return s.pod.Processes + uint64(len(threads))
}

// limitsWork tells whether RLIMIT_NPROC counts the processes of this user namespace alone: from Linux 5.14 on, where a user
// that is not root of the machine has made it.
func limitsWork(state State) bool {
	var major, minor int
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	_, err := fmt.Sscanf(string(release), "%d.%d", &major, &minor)
	ids, _ := os.ReadFile("/proc/self/uid_map")
	var inside, outside, size int64
	_, wrong := fmt.Sscan(string(ids), &inside, &outside, &size)
	return err == nil && wrong == nil && state.Mounts && size == 1 && outside != 0 && (major > 5 || major == 5 && minor >= 14)
}

// measure tells what the running containers use, or one of them.
func (s *server) measure(only string) map[string]Stats {
	live, memories, counts := map[string]time.Duration{}, map[string]uint64{}, map[string]uint64{}
	s.reaper.starting.RLock() // nothing is reaped between the two halves of a sum
	for _, p := range s.processes.scan() {
		if only != "" && p.owner != only {
			continue
		}
		live[p.owner] += p.cpu
		if !p.ownerless {
			counts[p.owner]++
			memories[p.owner] += memory(p.Pid, true)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]Stats{}
	for id, c := range s.containers {
		c.mu.Lock()
		if c.status.Running && (only == "" || id == only) {
			c.reported = max(c.reported, uint64(c.collected+live[id]))
			out[id] = Stats{CPUNanos: c.reported, Memory: memories[id], Processes: counts[id]}
		}
		c.mu.Unlock()
	}
	s.reaper.starting.RUnlock()
	return out
}
