package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"
	"labkit.dev/embedded/shim"
)

// alive lists the processes whose command line contains a mark.
func alive(mark string) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		command, _ := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		pid, err := strconv.Atoi(entry.Name())
		if err == nil && pid != os.Getpid() && bytes.Contains(command, []byte(mark)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// mark is a number of seconds for sleep that no other process has.
func mark() string { return fmt.Sprintf("9%d", time.Now().UnixNano()%1e12) }

func TestStopSignalsTheMainProcessAndKillsTheGroup(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		m := mark()
		id := f.start(sh("trap 'echo stopping; exit 3' TERM; setsid sh -c '(sleep " + m + " &) ; sleep " + m + "' & echo ready; while :; do sleep 0.05; done"))
		f.until("three processes run", func() bool { return strings.Contains(f.log(id), "ready") && len(alive(m)) >= 2 })
		if err := f.StopContainer(testContext, id, 10); err != nil {
			t.Fatal(err)
		}
		s := f.status(id)
		if s.State != cri.ContainerState_CONTAINER_EXITED || s.ExitCode != 3 || !strings.Contains(f.log(id), "stopping") {
			t.Errorf("%+v %s", s, f.log(id))
		}
		if left := alive(m); len(left) > 0 {
			t.Errorf("processes %v are left", left)
		}
		id = f.start(sh("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
		f.until("it runs", func() bool { return strings.Contains(f.log(id), "ready") })
		begin := time.Now()
		if err := f.StopContainer(testContext, id, 1); err != nil {
			t.Fatal(err)
		}
		if s, took := f.status(id), time.Since(begin); s.ExitCode != 137 || s.Reason != "Error" || took < time.Second || took > 5*time.Second {
			t.Errorf("after %s: %+v", took, s)
		}
		config := sh("trap 'exit 11' USR1; echo ready; while :; do sleep 0.05; done")
		config.StopSignal = cri.Signal_SIGNAL_SIGUSR1
		id = f.start(config)
		f.until("it runs", func() bool { return strings.Contains(f.log(id), "ready") })
		if err := f.StopContainer(testContext, id, 10); err != nil || f.status(id).ExitCode != 11 {
			t.Error(err, f.status(id))
		}
	})
}

func TestMainProcessTakesItsGroupWithIt(t *testing.T) {
	f := open(t, false)
	m := mark()
	id := f.start(sh("setsid sleep " + m + " & sleep 0.2"))
	f.ended(id)
	if left := alive(m); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func TestCommandsThatCannotStart(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		pod, podConfig := f.pod("wrong")
		for _, wrong := range []struct {
			command string
			message string
		}{
			{"no-such-program", `exec: "no-such-program": executable file not found in $PATH`},
			{"/etc/passwd", `exec: "/etc/passwd": permission denied`},
			{"/no/such/file", `exec: "/no/such/file": no such file or directory`},
		} {
			config := sh("")
			config.Command = []string{wrong.command}
			config.Metadata.Attempt++
			id, err := f.CreateContainer(testContext, pod, config, podConfig)
			if err != nil {
				t.Fatal(err)
			}
			err = f.StartContainer(testContext, id)
			if err == nil || !strings.Contains(err.Error(), wrong.message) {
				t.Errorf("%s: %v", wrong.command, err)
			}
			s := f.status(id)
			if s.State != cri.ContainerState_CONTAINER_EXITED || s.ExitCode != 128 || s.Reason != "StartError" || !strings.Contains(s.Message, wrong.message) {
				t.Errorf("%s: %+v", wrong.command, s)
			}
		}
		config := sh("")
		config.Command = nil
		if _, err := f.CreateContainer(testContext, pod, config, podConfig); err == nil || !strings.Contains(err.Error(), "no command specified") {
			t.Error(err)
		}
		config.Command, config.WorkingDir = []string{"pwd"}, "relative"
		if _, err := f.CreateContainer(testContext, pod, config, podConfig); err == nil || !strings.Contains(err.Error(), "absolute") {
			t.Error(err)
		}
	})
}

func TestPartialLinesAndRotation(t *testing.T) {
	f := open(t, false)
	id := f.start(sh("head -c 40000 /dev/zero | tr '\\0' x; echo; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo after; sleep 60"))
	f.until("the long line is written", func() bool { return strings.Contains(f.log(id), " F ") || strings.Contains(f.log(id), "stdout F") })
	parts := strings.Split(strings.TrimSpace(f.log(id)), "\n")
	if len(parts) != 3 || !strings.HasPrefix(parts[0], "stdout P ") || !strings.HasPrefix(parts[1], "stdout P ") || !strings.HasPrefix(parts[2], "stdout F ") {
		t.Fatalf("%d parts", len(parts))
	}
	total := 0
	for _, p := range parts {
		total += len(p) - len("stdout P ")
	}
	if len(parts[0]) != len("stdout P ")+16384 || total != 40000 {
		t.Errorf("%d bytes, the first part %d", total, len(parts[0]))
	}
	path := f.status(id).LogPath
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := f.ReopenContainerLog(testContext, id); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.ExecSync(testContext, id, []string{"touch", "/tmp/go"}, 0); err != nil {
		t.Fatal(err)
	}
	f.until("the new log has the new line", func() bool { return strings.Contains(f.log(id), "stdout F after") })
	if strings.Contains(f.log(id), "xxx") {
		t.Error("old lines are in the new log")
	}
}

func TestExecSync(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		id := f.start(sh("echo $$ > pid; sleep 600"))
		out, failed, err := f.ExecSync(testContext, id, []string{"sh", "-c", "echo out; echo err >&2"}, 5*time.Second)
		if string(out) != "out\n" || string(failed) != "err\n" || err != nil {
			t.Errorf("%q %q %v", out, failed, err)
		}
		_, _, err = f.ExecSync(testContext, id, []string{"sh", "-c", "exit 5"}, 5*time.Second)
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 5 {
			t.Errorf("%v", err)
		}
		m := mark()
		begin := time.Now()
		_, _, err = f.ExecSync(testContext, id, []string{"sh", "-c", "sleep " + m + "; true"}, time.Second)
		if status.Code(err) != codes.DeadlineExceeded || time.Since(begin) > 4*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		f.until("what timed out is killed", func() bool { return len(alive(m)) == 0 })
		if _, _, err = f.ExecSync(testContext, id, []string{"no-such-program"}, time.Second); err == nil || !strings.Contains(err.Error(), "not found in $PATH") {
			t.Error(err)
		}
		if f.status(id).State != cri.ContainerState_CONTAINER_RUNNING {
			t.Error("the container has ended")
		}
		if err := f.StopContainer(testContext, id, 0); err != nil {
			t.Fatal(err)
		}
		if _, _, err = f.ExecSync(testContext, id, []string{"true"}, time.Second); status.Code(err) != codes.FailedPrecondition {
			t.Error(err)
		}
	})
}

func TestBackgroundOfAnExecEndsWithItsContainer(t *testing.T) {
	f := open(t, false)
	id, m := f.start(sh("sleep 600")), mark()
	if _, _, err := f.ExecSync(testContext, id, []string{"sh", "-c", "setsid sleep " + m + " >/dev/null 2>&1 &"}, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	f.until("it runs in the background", func() bool { return len(alive(m)) == 1 })
	if err := f.StopContainer(testContext, id, 0); err != nil || len(alive(m)) != 0 {
		t.Error(err, alive(m))
	}
}

func TestRestartedRuntimeAdoptsPods(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		pod, podConfig := f.pod("adopted")
		running := f.startIn(pod, podConfig, sh("while :; do echo tick; sleep 0.05; done"))
		ends := f.startIn(pod, podConfig, &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "ends", Attempt: 3},
			Image: &cri.ImageSpec{Image: HostImage}, Command: []string{"sh", "-c", "sleep 0.5; exit 9"}, Labels: map[string]string{"a": "b"}})
		before := f.status(running)
		environment, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", f.shimPid(pod)))
		if !strings.Contains(string(environment), shim.SandboxVariable+"="+pod+"\x00") {
			t.Errorf("the shim cannot be found by its environment: %q", environment)
		}
		address := f.address(pod)
		f.Close(testContext)
		size := func() int64 { info, _ := os.Stat(before.LogPath); return info.Size() }
		old := size()
		f.until("the log is written without a runtime", func() bool { return size() > old })
		f.until("the other container ends without a runtime", func() bool {
			s, _ := shim.ReadStatus(filepath.Join(f.config.NodeDir, "pods", pod), ends)
			return s.FinishedAt != 0
		})
		f.reopen()
		after := f.status(running)
		if after.State != cri.ContainerState_CONTAINER_RUNNING || after.StartedAt != before.StartedAt || f.address(pod) != address {
			t.Errorf("%+v", after)
		}
		s := f.status(ends)
		if s.ExitCode != 9 || s.State != cri.ContainerState_CONTAINER_EXITED || s.Metadata.Attempt != 3 || s.Labels["a"] != "b" {
			t.Errorf("%+v", s)
		}
		if other, _ := f.pod("other"); f.address(other) == address {
			t.Error("the address was given out twice")
		}
		if err := f.StopContainer(testContext, running, 1); err != nil || f.status(running).ExitCode != 137 { // sh has no handler for SIGTERM
			t.Error(err, f.status(running))
		}
	})
}

func (f *fixture) address(pod string) string {
	f.t.Helper()
	r, err := f.PodSandboxStatus(testContext, pod, false)
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Status.Network.Ip
}

func (f *fixture) shimPid(pod string) int {
	f.t.Helper()
	state, err := shim.Client{Dir: filepath.Join(f.config.NodeDir, "pods", pod)}.ReadState()
	if err != nil {
		f.t.Fatal(err)
	}
	return state.Pid
}

func TestKilledShimLeavesNothing(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		for _, open := range []bool{true, false} { // the runtime sees it at once, or when it is opened again
			pod, podConfig := f.pod(fmt.Sprint("killed-", open))
			m := mark()
			id := f.startIn(pod, podConfig, sh("setsid sh -c 'sleep "+m+" & sleep "+m+"' & env -i sh -c 'sleep "+m+"; true' & echo ready; wait"))
			f.until("it runs", func() bool { return strings.Contains(f.log(id), "ready") && len(alive(m)) >= 4 })
			if !open {
				f.Close(testContext)
			}
			if err := syscall.Kill(f.shimPid(pod), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if !open {
				f.reopen()
			}
			s := f.ended(id)
			if s.ExitCode != 137 || s.Reason != "ContainerStatusUnknown" {
				t.Errorf("%+v", s)
			}
			f.until("the sandbox is not ready", func() bool {
				r, err := f.PodSandboxStatus(testContext, pod, false)
				return err == nil && r.Status.State == cri.PodSandboxState_SANDBOX_NOTREADY
			})
			if left := alive(m); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
			if err := f.RemovePodSandbox(testContext, pod); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestStopAndRemovePod(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		pod, podConfig := f.pod("gone")
		m := mark()
		id := f.startIn(pod, podConfig, sh("trap '' TERM; sleep "+m+"; sleep "+m))
		f.until("it runs", func() bool { return len(alive(m)) > 0 })
		for range 2 {
			if err := f.StopPodSandbox(testContext, pod); err != nil {
				t.Fatal(err)
			}
		}
		if s := f.status(id); s.State != cri.ContainerState_CONTAINER_EXITED || s.ExitCode != 137 {
			t.Errorf("%+v", s)
		}
		if len(alive(m)) > 0 || len(alive(pod)) > 0 {
			t.Error("processes are left")
		}
		for range 2 {
			if err := f.RemoveContainer(testContext, id); err != nil {
				t.Fatal(err)
			}
			if err := f.RemovePodSandbox(testContext, pod); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.ContainerStatus(testContext, id, false); status.Code(err) != codes.NotFound {
			t.Error(err)
		}
		if _, err := f.PodSandboxStatus(testContext, pod, false); status.Code(err) != codes.NotFound {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(f.config.NodeDir, "pods", pod)); !os.IsNotExist(err) {
			t.Error("its files are left")
		}
	})
}

func TestAddressesGoRoundTheRange(t *testing.T) {
	f := open(t, false)
	seen := map[string]bool{}
	for i := range 3 {
		pod, _ := f.pod(fmt.Sprint("p", i))
		address := f.address(pod)
		if seen[address] || address == f.config.NodeAddress.String() || !strings.HasPrefix(address, "198.19.") {
			t.Error(address)
		}
		seen[address] = true
		if err := f.RemovePodSandbox(testContext, pod); err != nil {
			t.Fatal(err)
		}
	}
	pod, podConfig := f.pod("host", func(c *cri.PodSandboxConfig) {
		c.Hostname = ""
		c.Linux = &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}}}
	})
	if f.address(pod) != "" {
		t.Error("a pod of the node's network has an address of its own")
	}
	id := f.startIn(pod, podConfig, sh("hostname; echo $HOSTNAME $HOST"))
	f.ended(id)
	if log, want := f.log(id), "stdout F node-1\nstdout F node-1 "+strings.Replace(f.config.NodeAddress.String(), "198.", "127.", 1)+"\n"; log != want {
		t.Errorf("%q instead of %q", log, want)
	}
}

func TestStatistics(t *testing.T) {
	f := open(t, false)
	burn := "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
	id := f.start(sh("sh -c '" + burn + "'; (sh -c '" + burn + "' &); python3 -c 'import time; x = bytearray(60_000_000); time.sleep(600)' & echo done; wait"))
	f.until("it has worked", func() bool { return strings.Contains(f.log(id), "done") })
	last := uint64(0)
	f.until("children's CPU time and memory count", func() bool {
		s, err := f.ContainerStats(testContext, id)
		if err != nil {
			t.Fatal(err)
		}
		cpu := s.Cpu.UsageCoreNanoSeconds.Value
		if cpu < last {
			t.Fatalf("CPU time fell from %d to %d", last, cpu)
		}
		last = cpu
		memory := s.Memory.WorkingSetBytes.Value
		return cpu > 100e6 && memory > 60e6 && memory < 200e6
	})
	cpu, memory := f.Usage()
	if cpu == 0 || memory < 60e6 {
		t.Error(cpu, memory)
	}
	pods, err := f.ListPodSandboxStats(testContext, nil)
	if err != nil || len(pods) != 1 || len(pods[0].Linux.Containers) != 1 || pods[0].Linux.Process.ProcessCount.Value < 2 {
		t.Error(pods, err)
	}
	all, err := f.ListContainerStats(testContext, &cri.ContainerStatsFilter{LabelSelector: map[string]string{"no": "match"}})
	if err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

func TestMemoryLimit(t *testing.T) {
	f := open(t, false)
	config := sh("python3 -c 'x = bytearray(80_000_000); import time; time.sleep(600)' & wait")
	config.Linux = &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 40 << 20}}
	s := f.ended(f.start(config))
	if s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("%+v", s)
	}
	config.Linux.Resources.MemoryLimitInBytes = 200 << 20
	id := f.start(config)
	time.Sleep(2500 * time.Millisecond)
	if s := f.status(id); s.State != cri.ContainerState_CONTAINER_RUNNING || s.Resources.Linux.MemoryLimitInBytes != 200<<20 {
		t.Fatalf("%+v", s)
	}
	lower := &cri.ContainerResources{Linux: &cri.LinuxContainerResources{MemoryLimitInBytes: 40 << 20}}
	if err := f.UpdateContainerResources(testContext, id, lower); err != nil {
		t.Fatal(err)
	}
	if s := f.ended(id); s.Reason != "OOMKilled" {
		t.Errorf("%+v", s)
	}
}

func TestTenPodsStartAtOnce(t *testing.T) {
	f := open(t, false)
	begin := time.Now()
	times := make(chan time.Duration, 10)
	for i := range 10 {
		go func() {
			pod, podConfig := f.pod(fmt.Sprint("quick", i))
			f.startIn(pod, podConfig, sh("sleep 600"))
			times <- time.Since(begin)
		}()
	}
	var slowest time.Duration
	for range 10 {
		slowest = max(slowest, <-times)
	}
	t.Log("ten pods at once: ", slowest)
}

// listen hears of the containers' events from now on.
func (f *fixture) listen() <-chan *cri.ContainerEventResponse {
	f.t.Helper()
	events := make(chan *cri.ContainerEventResponse, 16)
	go func() { _ = f.GetContainerEvents(testContext, events, nil) }()
	f.until("the listener is there", func() bool {
		f.events.mu.Lock()
		defer f.events.mu.Unlock()
		return len(f.events.listeners) == 1
	})
	return events
}

// hears expects the next events to be these, of a pod's only container.
func (f *fixture) hears(events <-chan *cri.ContainerEventResponse, id string, kinds ...cri.ContainerEventType) {
	f.t.Helper()
	for _, want := range kinds {
		select {
		case event := <-events:
			if event.ContainerEventType != want || event.ContainerId != id || event.PodSandboxStatus == nil || len(event.ContainersStatuses) != 1 {
				text, _ := json.Marshal(event)
				f.t.Errorf("%s instead of %s", text, want)
			}
		case <-time.After(time.Minute):
			f.t.Fatal("no event ", want)
		}
	}
}

func TestEvents(t *testing.T) {
	f := open(t, false)
	events := f.listen()
	id := f.start(sh("exit 4"))
	f.hears(events, id, cri.ContainerEventType_CONTAINER_CREATED_EVENT, cri.ContainerEventType_CONTAINER_STARTED_EVENT, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

func TestEventsOfAContainerThatEndsBeforeItsStartIsHeardOf(t *testing.T) {
	f := open(t, false)
	pod, podConfig := f.pod("short")
	id, err := f.CreateContainer(testContext, pod, sh("exit 4"), podConfig)
	if err != nil {
		t.Fatal(err)
	}
	events := f.listen()
	s, err := f.sandbox(pod)
	if err != nil {
		t.Fatal(err)
	}
	f.update(s, []shim.Status{{ID: id, StartedAt: 1, FinishedAt: 2, ExitCode: 4}})
	f.hears(events, id, cri.ContainerEventType_CONTAINER_STARTED_EVENT, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// TestTheMemoryLimitMayChangeWhileItIsRead is one for the race detector, too: as the kubelet does, it resizes, starts and measures
// at the same time.
func TestTheMemoryLimitMayChangeWhileItIsRead(t *testing.T) {
	f := open(t, false)
	pod, podConfig := f.pod("resized")
	id := f.startIn(pod, podConfig, named("first", sh("sleep 600")))
	var resizing sync.WaitGroup
	resizing.Go(func() {
		for i := range int64(50) {
			limits := &cri.LinuxContainerResources{MemoryLimitInBytes: (100 + i) << 20}
			if err := f.UpdateContainerResources(testContext, id, &cri.ContainerResources{Linux: limits}); err != nil {
				t.Error(err)
			}
		}
	})
	for range 20 {
		s, err := f.ContainerStats(testContext, id)
		if err != nil {
			t.Fatal(err)
		}
		if free := s.Memory.AvailableBytes; free != nil && s.Memory.UsageBytes.Value+free.Value < 100<<20 {
			t.Errorf("its limit is %d", s.Memory.UsageBytes.Value+free.Value)
		}
	}
	resizing.Wait()
	if s := f.status(id); s.Resources.Linux.MemoryLimitInBytes != 149<<20 {
		t.Error(s.Resources)
	}
}

func TestUserIsWhoThePodNames(t *testing.T) {
	f := open(t, false)
	config := sh("id -u; id -g; echo mine > /tmp/file; stat -c %u /tmp/file; exec sleep 600")
	config.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
		RunAsUser: &cri.Int64Value{Value: 1234}, RunAsGroup: &cri.Int64Value{Value: 2345},
	}}
	id := f.start(config)
	f.until("it has told who it is", func() bool { return strings.Count(f.log(id), "\n") == 3 })
	if log := f.log(id); log != "stdout F 1234\nstdout F 2345\nstdout F 1234\n" {
		t.Errorf("the container sees %q", log)
	}
	out, failed, err := f.ExecSync(testContext, id, []string{"sh", "-c", "id -u; cat /tmp/file; grep CapEff /proc/self/status; exit 3"}, 5*time.Second)
	var exit utilexec.CodeExitError
	if string(out) != "1234\nmine\nCapEff:\t0000000000000000\n" || !errors.As(err, &exit) || exit.Code != 3 {
		t.Errorf("a command sees %q %q %v", out, failed, err)
	}
	if s := f.status(id); s.User.Linux.Uid != 1234 || s.User.Linux.Gid != 2345 {
		t.Errorf("it is said to be %v", s.User)
	}
	m := mark()
	if _, _, err := f.ExecSync(testContext, id, []string{"sh", "-c", "sleep " + m}, time.Second); status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	f.until("what timed out is killed", func() bool { return len(alive(m)) == 0 })
	if err := f.StopContainer(testContext, id, 0); err != nil {
		t.Error(err)
	}
}

func TestRootHasAContainersCapabilities(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only a node that root runs has capabilities to give")
	}
	f := open(t, false)
	effective := func(context *cri.LinuxContainerSecurityContext) string {
		config := sh("grep CapEff /proc/self/status; exec sleep 600")
		config.Linux = &cri.LinuxContainerConfig{SecurityContext: context}
		id := f.start(config)
		f.until("it has told what it may", func() bool { return strings.Contains(f.log(id), "CapEff") })
		out, _, err := f.ExecSync(testContext, id, []string{"grep", "CapEff", "/proc/self/status"}, 5*time.Second)
		if err != nil || "stdout F "+string(out) != f.log(id) {
			t.Errorf("a command may do %q, %v", out, err)
		}
		return strings.TrimSpace(string(out))
	}
	if got := effective(nil); got != "CapEff:\t00000000a80425fb" { // as containerd's
		t.Error(got)
	}
	added := &cri.LinuxContainerSecurityContext{Capabilities: &cri.Capability{AddCapabilities: []string{"NET_ADMIN"}}}
	if got := effective(added); got != "CapEff:\t00000000a80435fb" {
		t.Error(got)
	}
	if got := effective(&cri.LinuxContainerSecurityContext{Privileged: true}); !strings.Contains(got, "ffffffff") && got == "CapEff:\t00000000a80425fb" {
		t.Error("privileged is not: ", got)
	}
}
