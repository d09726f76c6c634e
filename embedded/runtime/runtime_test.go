package runtime

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/shim"
	"labkit.dev/embedded/sockets"
)

var shimPath = os.Getenv("LABKIT_TEST_SHIM")

// TestMain builds the real shim: these tests run real processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "init" { // for sockets.Supported, which runs this program again
		sockets.Init(os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == "try-bind" {
		sockets.TryBind()
	}
	if shimPath == "" {
		dir, err := os.MkdirTemp("", "shim")
		if err != nil {
			panic(err)
		}
		shimPath = filepath.Join(dir, "shim")
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags", "-s -w", "-o", shimPath, "labkit.dev/embedded/cmd/shim")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s\n%v\n", out, err)
			os.Exit(1)
		}
		code := m.Run()
		os.RemoveAll(dir)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

var ranges atomic.Int32 // each test has its own /24, far from clusters' slots

type fixture struct {
	*Runtime
	t      *testing.T
	config Config
	dir    string
}

// modes are the ways a container's files are laid out; each must pass the same tests.
func modes(t *testing.T, test func(t *testing.T, f *fixture)) {
	for _, links := range []bool{false, true} {
		name := map[bool]string{false: "mounts", true: "links"}[links]
		t.Run(name, func(t *testing.T) { test(t, open(t, links)) })
	}
}

func open(t *testing.T, links bool) *fixture {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 60)) // longer than a socket's name may be
	prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, 240, byte(ranges.Add(1))}), 24)
	octets := prefix.Addr().As4()
	octets[2], octets[3] = 240-octets[3], 0
	prefix = netip.PrefixFrom(netip.AddrFrom4(octets), 24)
	config := Config{
		NodeDir: filepath.Join(dir, "node"), ImagesDir: filepath.Join(dir, "images"), ShimPath: shimPath,
		PodPrefix: prefix, NodeAddress: prefix.Addr().Next(), NodeName: "node-1", Links: links,
	}
	f := &fixture{t: t, config: config, dir: dir}
	f.reopen()
	t.Cleanup(func() {
		f.Close(context.Background())
		if err := shim.EndAll(filepath.Join(config.NodeDir, "pods")); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) reopen() {
	f.t.Helper()
	r, err := New(f.config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Runtime = r
}

var testContext = context.Background()

func (f *fixture) pod(name string, change ...func(*cri.PodSandboxConfig)) (string, *cri.PodSandboxConfig) {
	f.t.Helper()
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"}, Hostname: name,
		LogDirectory: filepath.Join(f.dir, "logs", name), Labels: map[string]string{"pod": name},
	}
	for _, c := range change {
		c(config)
	}
	id, err := f.RunPodSandbox(testContext, config, "")
	if err != nil {
		f.t.Fatal(err)
	}
	return id, config
}

func sh(script string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: HostImage},
		Command: []string{"sh", "-c", script}, LogPath: "main.log",
	}
}

// start runs a container in a pod of its own.
func (f *fixture) start(config *cri.ContainerConfig) string {
	f.t.Helper()
	pod, podConfig := f.pod(fmt.Sprintf("pod-%d", time.Now().UnixNano()))
	return f.startIn(pod, podConfig, config)
}

func (f *fixture) startIn(pod string, podConfig *cri.PodSandboxConfig, config *cri.ContainerConfig) string {
	f.t.Helper()
	id, err := f.CreateContainer(testContext, pod, config, podConfig)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.StartContainer(testContext, id); err != nil {
		f.t.Fatal(err)
	}
	return id
}

func (f *fixture) status(id string) *cri.ContainerStatus {
	f.t.Helper()
	r, err := f.ContainerStatus(testContext, id, false)
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Status
}

// ended waits for a container's end.
func (f *fixture) ended(id string) *cri.ContainerStatus {
	f.t.Helper()
	var s *cri.ContainerStatus
	f.until("the container ends", func() bool {
		s = f.status(id)
		return s.State == cri.ContainerState_CONTAINER_EXITED
	})
	return s
}

func (f *fixture) until(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("did not happen: ", what)
		}
	}
}

// log is what a container wrote, without times.
func (f *fixture) log(id string) string {
	f.t.Helper()
	text, err := os.ReadFile(f.status(id).LogPath)
	if err != nil {
		f.t.Fatal(err)
	}
	var out strings.Builder
	for _, line := range strings.SplitAfter(string(text), "\n") {
		if at, rest, ok := strings.Cut(line, " "); ok {
			if _, err := time.Parse(time.RFC3339Nano, at); err != nil {
				f.t.Error(err)
			}
			out.WriteString(rest)
		}
	}
	return out.String()
}

// output runs a script in a new container and returns its standard output.
func (f *fixture) output(config *cri.ContainerConfig) string {
	f.t.Helper()
	id := f.start(config)
	s := f.ended(id)
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(f.log(id)), "\n") {
		out.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, "stdout F "), "stdout P ") + "\n")
	}
	if s.ExitCode != 0 {
		f.t.Fatalf("exit code %d: %s", s.ExitCode, out.String())
	}
	return strings.TrimSpace(out.String())
}

func TestExitCodesAndLogs(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		id := f.start(sh("echo out; echo err >&2; printf 'no end'; exit 7"))
		s := f.ended(id)
		if s.ExitCode != 7 || s.Reason != "Error" || s.StartedAt == 0 || s.FinishedAt < s.StartedAt {
			t.Errorf("%+v", s)
		}
		log := f.log(id)
		for _, line := range []string{"stdout F out\n", "stderr F err\n", "stdout P no end\n"} {
			if !strings.Contains(log, line) {
				t.Errorf("%q is not in %q", line, log)
			}
		}
		if s := f.ended(f.start(sh("exec python3 -c 'import ctypes; ctypes.string_at(0)'"))); s.ExitCode != 139 || s.Reason != "Error" {
			t.Errorf("%+v", s)
		}
		if s := f.ended(f.start(sh("true"))); s.ExitCode != 0 || s.Reason != "Completed" {
			t.Errorf("%+v", s)
		}
	})
}
