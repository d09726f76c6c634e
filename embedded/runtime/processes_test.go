package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/shim"
)

// inPids makes a container see the processes of a namespace.
func inPids(config *cri.ContainerConfig, mode cri.NamespaceMode, target string) *cri.ContainerConfig {
	config.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
		NamespaceOptions: &cri.NamespaceOption{Pid: mode, TargetId: target},
	}}
	return config
}

func named(name string, config *cri.ContainerConfig) *cri.ContainerConfig {
	config.Metadata.Name, config.LogPath = name, name+".log"
	return config
}

// needPids skips where containers cannot have process namespaces.
func (f *fixture) needPids() {
	f.t.Helper()
	if err := shim.PidsSupported(shimPath); err != nil {
		f.t.Skip(err)
	}
}

// exec runs a script in a container and returns what it puts out.
func (f *fixture) script(id, script string) string {
	f.t.Helper()
	out, failed, err := f.ExecSync(testContext, id, []string{"sh", "-c", script}, 20*time.Second)
	if err != nil {
		f.t.Fatalf("%v: %s", err, failed)
	}
	return strings.TrimSpace(string(out))
}

// TestADaemonEndsWithItsContainer has a program go to the background in every way that hides where it comes from: in a session
// of its own, without an environment, adopted by others, while another container of the pod runs.
func TestADaemonEndsWithItsContainer(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		pod, podConfig := f.pod("daemons")
		other := f.startIn(pod, podConfig, named("other", sh("sleep 600")))
		for attempt := range 3 {
			m := mark()
			daemon := `import os
for _ in range(2):
    if os.fork(): os._exit(0)
    os.setsid()
os.execve("/bin/sleep", ["sleep", "` + m + `"], {})`
			config := sh("python3 -c '" + daemon + "'; while ! grep -qs " + m + " /proc/*/cmdline; do sleep 0.01; done")
			config.Metadata.Attempt = uint32(attempt)
			id := f.startIn(pod, podConfig, config)
			if s := f.ended(id); s.ExitCode != 0 {
				t.Fatalf("%+v", s)
			}
			if left := alive(m); len(left) > 0 {
				t.Errorf("processes %v outlive their container", left)
			}
		}
		m := mark()
		f.script(other, "setsid env -i sleep "+m+" >/dev/null 2>&1 & sleep 0.1")
		if len(alive(m)) != 1 {
			t.Fatal("what a command has left in the background has ended with the command")
		}
		if err := f.StopContainer(testContext, other, 0); err != nil || len(alive(m)) > 0 {
			t.Errorf("a command's daemon outlives its container: %v %v", alive(m), err)
		}
	})
}

// TestTheFirstProcessGetsOnlySignalsThatItHandles is what makes a program without a handler use up its grace period.
func TestTheFirstProcessGetsOnlySignalsThatItHandles(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		config := sh("")
		config.Command = []string{"sleep", "600"}
		id := f.start(config)
		if err := f.StopContainer(testContext, id, 1); err != nil {
			t.Fatal(err)
		}
		if s := f.status(id); s.ExitCode != 137 {
			t.Errorf("a program without a handler ended with %d, not when its time was up", s.ExitCode)
		}
		for kind, program := range map[string]string{
			"handler": "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nprint('up', flush=True)\nwhile True: signal.pause()",
			"waits": "import signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\nprint('up', flush=True)\n" +
				"signal.sigwait([signal.SIGTERM])\nsys.exit(7)",
		} {
			config := sh("")
			config.Command = []string{"python3", "-c", program}
			id := f.start(config)
			f.until("it is up", func() bool { return strings.Contains(f.log(id), "up") })
			if err := f.StopContainer(testContext, id, 20); err != nil || f.status(id).ExitCode != 7 {
				t.Errorf("%s: %v %v", kind, err, f.status(id))
			}
		}
	})
}

const numbers = "cd /proc; echo [0-9]*"

func TestAContainerHasProcessesOfItsOwn(t *testing.T) {
	f := open(t, false)
	f.needPids()
	for _, user := range []int64{0, 1234} {
		config := inPids(sh("echo $$; exec sleep 600"), cri.NamespaceMode_CONTAINER, "")
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: user}
		id := f.start(config)
		f.until("it has told its number", func() bool { return f.log(id) != "" })
		if log := f.log(id); log != "stdout F 1\n" {
			t.Errorf("the first process has number %q", log)
		}
		seen := strings.Fields(f.script(id, numbers))
		if len(seen) != 2 || seen[0] != "1" {
			t.Errorf("a command sees processes %v", seen)
		}
		m := mark()
		f.script(id, "setsid sleep "+m+" >/dev/null 2>&1 &")
		s, err := f.ContainerStats(testContext, id)
		if err != nil || s.Cpu.UsageCoreNanoSeconds.Value == 0 {
			t.Errorf("%v %v", s, err)
		}
		if err := f.StopContainer(testContext, id, 0); err != nil || len(alive(m)) > 0 {
			t.Errorf("%v, processes %v are left", err, alive(m))
		}
	}
}

func TestContainersThatShareTheirProcesses(t *testing.T) {
	f := open(t, false)
	f.needPids()
	pod, podConfig := f.pod("shares")
	first, m := f.startIn(pod, podConfig, named("first", inPids(sh("sleep 600"), cri.NamespaceMode_POD, ""))), mark()
	config := named("second", inPids(sh("setsid env -i sleep "+m+" & exec sleep 600"), cri.NamespaceMode_POD, ""))
	config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1234}
	second := f.startIn(pod, podConfig, config)
	f.until("the second's processes run", func() bool { return len(alive(m)) == 1 })
	for _, id := range []string{first, second} {
		if seen := f.script(id, "cat /proc/1/comm; cat /proc/*/cmdline | tr '\\0' ' '"); !strings.HasPrefix(seen, "pause\n") || !strings.Contains(seen, m) {
			t.Errorf("a container sees %q", seen)
		}
	}
	if user := f.script(second, "id -u"); user != "1234" {
		t.Errorf("a command's user is %s", user)
	}
	if err := f.StopContainer(testContext, second, 0); err != nil || len(alive(m)) > 0 {
		t.Errorf("%v, processes %v of an ended container are left", err, alive(m))
	}
	if f.status(first).State != cri.ContainerState_CONTAINER_RUNNING {
		t.Error("the other container has ended, too")
	}
	target := f.startIn(pod, podConfig, named("target", sh("sleep 600")))
	debug := f.startIn(pod, podConfig, named("debug", inPids(sh("exec sleep 600"), cri.NamespaceMode_TARGET, target)))
	if seen := strings.Fields(f.script(debug, numbers)); len(seen) < 3 || seen[0] != "1" {
		t.Errorf("a debugging container sees %v", seen)
	}
	if err := f.StopContainer(testContext, target, 0); err != nil {
		t.Error(err)
	}
	f.ended(debug)
}

// TestADebuggingContainerKeepsItsUser has it join the processes of containers that have a user themselves, and not.
func TestADebuggingContainerKeepsItsUser(t *testing.T) {
	f := open(t, false)
	f.needPids()
	if err := shim.UsersSupported(shimPath); err != nil {
		t.Skip(err)
	}
	as := func(user int64, config *cri.ContainerConfig) *cri.ContainerConfig {
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: user}
		return config
	}
	pod, podConfig := f.pod("debugged")
	for i, targets := range []*cri.ContainerConfig{inPids(sh("sleep 600"), cri.NamespaceMode_CONTAINER, ""), as(4321, inPids(sh("sleep 600"), cri.NamespaceMode_CONTAINER, ""))} {
		target := f.startIn(pod, podConfig, named(fmt.Sprint("target", i), targets))
		config := as(1234, inPids(sh("id -u; exec sleep 600"), cri.NamespaceMode_TARGET, target))
		debug := f.startIn(pod, podConfig, named(fmt.Sprint("debug", i), config))
		f.until("it has told who it is", func() bool { return f.log(debug) != "" })
		if log := f.log(debug); log != "stdout F 1234\n" {
			t.Errorf("its user is %q", log)
		}
		if user := f.script(debug, "id -u"); user != "1234" {
			t.Errorf("a command's user is %s", user)
		}
		if seen := strings.Fields(f.script(debug, numbers)); len(seen) < 3 || seen[0] != "1" {
			t.Errorf("it sees %v", seen)
		}
		if comm := f.script(debug, "cat /proc/1/comm"); comm != "sh" && comm != "sleep" {
			t.Errorf("the first process is %s", comm)
		}
		if err := f.StopContainer(testContext, target, 0); err != nil {
			t.Error(err)
		}
		f.ended(debug)
	}
}

func TestAContainerOfTheNodesProcessesSeesThem(t *testing.T) {
	f := open(t, false)
	m := mark()
	id := f.start(inPids(sh("setsid env -i sleep "+m+" & wait"), cri.NamespaceMode_NODE, ""))
	if seen := strings.Fields(f.script(id, numbers)); !contains(seen, strconv.Itoa(os.Getpid())) {
		t.Errorf("it sees %v, and not this process", seen)
	}
	f.until("its processes run", func() bool { return len(alive(m)) == 2 })
	if err := f.StopContainer(testContext, id, 10); err != nil || f.status(id).ExitCode != 143 || len(alive(m)) > 0 {
		t.Errorf("%v, exit code %d, processes %v are left", err, f.status(id).ExitCode, alive(m))
	}
}

func contains(all []string, one string) bool {
	for _, each := range all {
		if each == one {
			return true
		}
	}
	return false
}

func TestKilledShimOfOtherPods(t *testing.T) {
	for name, mode := range map[string]cri.NamespaceMode{"share": cri.NamespaceMode_POD, "node": cri.NamespaceMode_NODE} {
		t.Run(name, func(t *testing.T) {
			f := open(t, false)
			f.needPids()
			pod, podConfig := f.pod("killed")
			m := mark()
			id := f.startIn(pod, podConfig, inPids(sh("setsid env -i sleep "+m+" & sleep "+m), mode, ""))
			f.until("it runs", func() bool { return len(alive(m)) >= 2 })
			f.script(id, "setsid env -i sleep "+m+" >/dev/null 2>&1 &")
			if err := syscall.Kill(f.shimPid(pod), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			f.ended(id)
			if left := alive(m); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
}

func TestOOMScore(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		config := sh("exec sleep 600")
		config.Linux = &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{OomScoreAdj: 1000}}
		id := f.start(config)
		if score := f.script(id, "cat /proc/self/oom_score_adj"); score != "1000" {
			t.Errorf("a command's score is %s", score)
		}
		status, _ := shim.ReadStatus(filepath.Dir(filepath.Dir(f.containers[id].dir)), id)
		if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", status.Pid)); strings.TrimSpace(string(score)) != "1000" {
			t.Errorf("the main process's score is %s %v", score, err)
		}
		config.Linux.Resources.OomScoreAdj = -997 // only root may lower it: it starts all the same
		if id := f.start(config); f.status(id).State != cri.ContainerState_CONTAINER_RUNNING {
			t.Error(f.status(id))
		}
	})
}

func TestLimitOfProcesses(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		f.PodProcesses = 40
		id := f.start(sh("i=0; while [ $i -lt 120 ]; do sleep 600 & i=$((i+1)); done; echo all; wait"))
		if f.isolation().pids && os.Getuid() != 0 {
			f.until("a fork is refused", func() bool { return strings.Contains(strings.ToLower(f.log(id)), "fork") })
			if s := f.status(id); strings.Contains(f.log(id), "all\n") {
				t.Errorf("%v %s", s, f.log(id))
			}
			return
		}
		if s := f.ended(id); s.ExitCode != 137 {
			t.Errorf("%v", s)
		}
	})
}

func TestRefusedRequestsKeepNoDescriptors(t *testing.T) {
	f := open(t, false)
	pod, _ := f.pod("refuses")
	client := shim.Client{Dir: filepath.Join(f.config.NodeDir, "pods", pod)}
	held := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", f.shimPid(pod)))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	try := func() {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		defer writer.Close()
		if _, err := client.Exec(testContext, "nobody", []string{"true"}, false, []string{"stdin", "stdout"}, []*os.File{reader, writer}); err == nil {
			t.Fatal("a command ran in a container that is not there")
		}
	}
	try()
	before := held()
	for range 20 {
		try()
	}
	f.until("the descriptors are closed", func() bool { return held() <= before+2 })
}

func TestDirectoriesThatAreLockedUpAreRemoved(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		pod, podConfig := f.pod("locks")
		id := f.startIn(pod, podConfig, sh("cd /tmp && mkdir -p a/b/c && touch a/b/f && chmod 0 a/b a"))
		f.ended(id)
		if err := f.RemoveContainer(testContext, id); err != nil {
			t.Error(err)
		}
		if err := f.RemovePodSandbox(testContext, pod); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(f.config.NodeDir, "pods", pod)); !os.IsNotExist(err) {
			t.Error("the pod's directory is left: ", err)
		}
	})
}

// TestAShimThatHangs must not keep the node from its other pods.
func TestAShimThatHangs(t *testing.T) {
	f := open(t, false)
	pod, podConfig := f.pod("hangs")
	id := f.startIn(pod, podConfig, sh("sleep 600"))
	f.Close(testContext)
	hung := f.shimPid(pod)
	if err := syscall.Kill(hung, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		r, err := New(f.config)
		if err == nil {
			f.Runtime = r
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(hung, syscall.SIGCONT)
		t.Fatal("the runtime does not open")
	}
	if f.status(id).State != cri.ContainerState_CONTAINER_RUNNING {
		t.Error(f.status(id))
	}
	_ = syscall.Kill(hung, syscall.SIGCONT)
	if out := f.script(id, "echo well"); out != "well" {
		t.Error(out)
	}
}
