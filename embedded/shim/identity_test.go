package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bystander is a process that is not ours, in a session of its own.
func bystander(t *testing.T, env ...string) int {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// lives tells whether a process is neither gone nor a zombie.
func lives(pid int) bool {
	p, ok := readProcess(pid)
	return ok && !p.zombie
}

// deadPod is the directory of a pod whose shim is gone, and whose container's main process had the given number.
func deadPod(t *testing.T, pod string, pid int, started uint64) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "containers", "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	status, _ := json.Marshal(map[string]any{
		"id": "c", "running": true, "pid": pid, "started_ticks": started,
		"keeper": map[string]any{"pid": pid, "started": started},
	})
	for name, text := range map[string]string{
		"pod.json":  fmt.Sprintf(`{"id":%q}`, pod),
		"shim.json": fmt.Sprintf(`{"pid":%d,"started_ticks":%d,"boot":%q}`, pid, started, bootID()), "containers/c/status.json": string(status),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTheSweepSparesWhoHasANumberNow(t *testing.T) {
	pid := bystander(t)
	dir := deadPod(t, "mine", pid, 1) // its number was a container's, of a process that started long ago
	statuses, err := Sweep(dir)
	if err != nil || len(statuses) != 1 || statuses[0].Running || statuses[0].ExitCode != 137 {
		t.Errorf("%+v %v", statuses, err)
	}
	time.Sleep(50 * time.Millisecond)
	if !lives(pid) {
		t.Error("a process that has a container's number and session now was killed")
	}
}

func TestTheSweepFindsItsOwn(t *testing.T) {
	recorded := bystander(t)
	started, _ := identify(recorded)
	marked := bystander(t, SandboxVariable+"=mine")
	foreign := bystander(t, SandboxVariable+"=another's")
	done := make(chan error, 1)
	go func() {
		_, err := Sweep(deadPod(t, "mine", recorded, started.Started))
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if lives(recorded) || lives(marked) {
		t.Errorf("the recorded process lives: %v, one with the pod's mark: %v", lives(recorded), lives(marked))
	}
	if !lives(foreign) {
		t.Error("another pod's process was killed")
	}
}

func TestASignalReachesTheProcessThatIsMeant(t *testing.T) {
	pid := bystander(t)
	now, ok := identify(pid)
	if !ok {
		t.Fatal("it is not there")
	}
	earlier := identity{now.Pid, now.Started - 1}
	if err := earlier.signal(syscall.SIGKILL); err != unix.ESRCH || !lives(pid) {
		t.Errorf("a signal for an earlier process of the number: %v, and the later one lives: %v", err, lives(pid))
	}
	if err := now.signal(syscall.SIGKILL); err != nil || !now.gone(5*time.Second) {
		t.Error(err)
	}
}

// TestTheTableKnowsAProcessByItsStart is about a container whose process has ended, and whose number is another child's.
func TestTheTableKnowsAProcessByItsStart(t *testing.T) {
	pid := bystander(t)
	table := newTable(func(process) string { return "" })
	i := table.claim(pid, claim{owner: "c"})
	delete(table.claimed, i)
	table.claimed[identity{i.Pid, i.Started - 1}] = claim{owner: "c"}
	if !table.kill("c", time.Second) || !lives(pid) {
		t.Error("a process was killed for an earlier one of its number")
	}
}

// TestEndReturns though containers resist being killed.
func TestEndReturns(t *testing.T) {
	s := &server{containers: map[string]*container{}}
	s.processes = newTable(func(process) string { return "" })
	for _, id := range []string{"a", "b", "c"} {
		s.containers[id] = &container{done: make(chan struct{})}
	}
	ended := make(chan struct{})
	go func() { s.end(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(3 * killLimit):
		t.Fatal("the end of a pod with several containers that cannot be killed does not come")
	}
}

// TestLogOnAFullDisk has a file that cannot grow instead.
func TestLogOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	signal.Ignore(syscall.SIGXFSZ)
	var unlimited unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &unlimited); err != nil {
		t.Fatal(err)
	}
	l.write("stdout", false, []byte("before"))
	info, _ := os.Stat(path)
	full := unlimited
	full.Cur = uint64(info.Size()) + 20
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	l.write("stdout", false, []byte("lost, as there is no room for it"))
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unlimited); err != nil {
		t.Fatal(err)
	}
	l.write("stdout", false, []byte("after"))
	text, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], " stdout F before") || !strings.HasSuffix(lines[1], " stdout F after") {
		t.Errorf("%q", lines)
	}
}
