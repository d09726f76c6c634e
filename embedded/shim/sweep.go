package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"labkit.dev/embedded/sockets"
)

// Sweep cleans up after a shim that was killed: the pod's processes are killed, and containers that ran are recorded as ended
// by SIGKILL. The main processes died with the shim, and with them all that shared their process namespaces; keepers end the
// rest. What is left is found by its environment, which names the pod. Nothing is told by numbers that may be another's by now.
// It returns the statuses of the pod's containers.
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
		if left := killLeft(pod.ID, state, statuses); left > 0 {
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
func killLeft(pod string, state State, statuses []Status) int {
	_ = identity{state.Pid, state.Started}.signal(syscall.SIGKILL) // it may hang
	for _, s := range statuses {
		if s.Running && s.Keeper.Pid != 0 && !s.Keeper.gone(killLimit/2) {
			_ = s.Keeper.signal(syscall.SIGKILL)
		}
	}
	begin, missed := time.Now(), 0
	for {
		left := 0
		for _, s := range statuses {
			if main := (identity{s.Pid, s.Started}); s.Running && !main.gone(0) {
				left++
				_ = main.signal(syscall.SIGKILL)
			}
		}
		for _, pid := range pids() {
			p, ok := readProcess(pid)
			if !ok || p.zombie || pid == os.Getpid() || variable(pid, SandboxVariable) != pod {
				continue
			}
			left++
			// A keeper that is left cares for a command; it needs a moment for what is below it.
			if !sockets.IsKeeper(pid) || time.Since(begin) > killLimit/2 {
				_ = p.signal(syscall.SIGKILL)
			}
		}
		if left > 0 {
			missed = 0
		} else if missed++; missed == 2 {
			return 0
		}
		if time.Since(begin) > killLimit {
			return left
		}
		time.Sleep(5 * time.Millisecond)
	}
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
