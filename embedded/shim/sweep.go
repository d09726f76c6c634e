package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Sweep cleans up after a shim that was killed: the pod's processes are killed, and containers that ran are recorded as ended
// by SIGKILL. The main processes died with the shim; what they started is found by its environment, its mount namespace or its
// session. It returns the statuses of the pod's containers.
func Sweep(dir string) ([]Status, error) {
	var pod Pod
	if err := readJSON(filepath.Join(dir, "pod.json"), &pod); err != nil {
		return nil, err
	}
	statuses, err := statusesOf(dir)
	if err != nil {
		return nil, err
	}
	var state State
	if readJSON(filepath.Join(dir, "shim.json"), &state) == nil && state.Boot == bootID() {
		if left := killLeft(pod.ID, statuses); left > 0 {
			err = fmt.Errorf("%d processes of pod %s cannot be killed", left, pod.ID)
		}
	}
	for i := range statuses {
		s := &statuses[i]
		if !s.Running {
			continue
		}
		s.Running, s.FinishedAt, s.ExitCode = false, time.Now().UnixNano(), 128+int(syscall.SIGKILL)
		s.Reason, s.Message = Unknown, "the pod's shim was killed, and its processes with it"
		if failed := writeJSON(StatusFile(dir, s.ID), s); failed != nil {
			err = failed
		}
	}
	return statuses, err
}

func statusesOf(dir string) ([]Status, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "containers"))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var out []Status
	for _, entry := range entries {
		if s, ok := ReadStatus(dir, entry.Name()); ok {
			out = append(out, s)
		}
	}
	return out, nil
}

// killLeft kills the processes of a pod without a shim until none is left or the time is up; it returns how many are.
func killLeft(pod string, statuses []Status) int {
	deadline := time.Now().Add(killLimit)
	for {
		left := 0
		for _, pid := range pids() {
			if p, ok := readProcess(pid); ok && !p.zombie && belongs(p, pod, statuses) {
				left++
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if left == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// belongs tells whether a process is left from a pod. Its environment decides. A program that has overwritten that (nginx does)
// is known by its session or mount namespace, unless a living shim cares for it: both numbers may be another's by now.
func belongs(p process, pod string, statuses []Status) bool {
	if p.pid == os.Getpid() {
		return false
	}
	if of := variable(p.pid, SandboxVariable); of != "" {
		return of == pod
	}
	namespace := mountNS(p.pid)
	return slices.ContainsFunc(statuses, func(s Status) bool {
		return s.Running && (s.Pid != 0 && s.Pid == p.session || s.MountNS != 0 && s.MountNS == namespace)
	}) && !caredFor(p)
}

// caredFor tells whether a shim is among a process's ancestors.
func caredFor(p process) bool {
	for step := 0; step < 64 && p.parent > 1; step++ {
		command, _ := os.ReadFile("/proc/" + strconv.Itoa(p.parent) + "/cmdline")
		if strings.HasPrefix(string(command), "shim\x00pod\x00") {
			return true
		}
		var ok bool
		if p, ok = readProcess(p.parent); !ok {
			return false
		}
	}
	return false
}

// EndAll ends every pod below a directory that has their directories, as when a machine is lost: by its shim, or, where that
// does not answer, without it. It returns the first problem, after having tried all.
func EndAll(pods string) error {
	entries, err := os.ReadDir(pods)
	if os.IsNotExist(err) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*killLimit)
	defer cancel()
	results := make(chan error)
	for _, entry := range entries {
		go func() { results <- endOne(ctx, filepath.Join(pods, entry.Name())) }()
	}
	for range entries {
		if failed := <-results; failed != nil && err == nil {
			err = failed
		}
	}
	return err
}

func endOne(ctx context.Context, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "pod.json")); err != nil {
		return nil // half made: nothing was started
	}
	_ = Client{dir}.Shutdown(ctx)
	_, err := Sweep(dir)
	return err
}
