package shim

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/sockets"
)

const openPort = 8097 // of the test's server

// beyondLoopback are the addresses at which something listens on the port, without those that only this machine reaches.
func beyondLoopback(t *testing.T) (out []string) {
	t.Helper()
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.Open(file)
		if os.IsNotExist(err) { // no IPv6
			continue
		}
		if err != nil {
			t.Error(err)
			return nil
		}
		for lines := bufio.NewScanner(text); lines.Scan(); {
			f := strings.Fields(lines.Text())
			if len(f) < 4 || f[3] != "0A" || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", openPort)) {
				continue
			}
			address, _, _ := strings.Cut(f[1], ":")
			mapped, four := strings.CutPrefix(address, "0000000000000000FFFF0000")
			if four && strings.HasSuffix(mapped, "7F") || len(address) == 8 && strings.HasSuffix(address, "7F") || address == "00000000000000000000000001000000" {
				continue
			}
			out = append(out, f[1])
		}
		text.Close()
	}
	return out
}

// realShim is the shim as it is built for clusters.
func realShim(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("LABKIT_TEST_SHIM"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "shim")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags", "-s -w", "-o", path, "labkit.dev/embedded/cmd/shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v", out, err)
	}
	return path
}

// startPod starts the shim of a pod, with as few variables as a cluster's has.
func startPod(t *testing.T, program string, links bool) (Client, int) {
	t.Helper()
	dir := t.TempDir()
	policy := sockets.Policy{Kind: sockets.Pod, Address: netip.MustParseAddr("127.19.249.1")}
	if err := writeJSON(filepath.Join(dir, "pod.json"), Pod{ID: "pod", Policy: policy, Links: links || MountsSupported(program) != nil}); err != nil {
		t.Fatal(err)
	}
	start := exec.Command(program, "pod", "--dir", dir)
	start.Env = []string{}
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	client := Client{dir}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = client.Shutdown(ctx)
	})
	state, err := client.ReadState()
	if err != nil {
		t.Fatal(err)
	}
	return client, state.Pid
}

// limited sets a limit of a process while do runs.
func limited(t *testing.T, pid, resource int, limit uint64, do func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: limit, Max: old.Max}, nil); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prlimit(pid, resource, &old, nil) }()
	do()
}

// TestNoFailureOpensThePod lets every step of a start fail. Whatever failed, this program and the ones after it must not listen on the
// machine's addresses. They are looked at throughout.
func TestNoFailureOpensThePod(t *testing.T) {
	if err := exec.Command("python3", "-c", "").Run(); err != nil {
		t.Fatal("python3 is needed: ", err)
	}
	if before := beyondLoopback(t); len(before) > 0 {
		t.Fatalf("port %d is in use here: %v", openPort, before)
	}
	program := realShim(t)
	for _, links := range []bool{false, true} {
		t.Run(map[bool]string{false: "mounts", true: "links"}[links], func(t *testing.T) { tryFailures(t, program, links) })
	}
}

func tryFailures(t *testing.T, program string, links bool) {
	pod, pid := startPod(t, program, links)
	over, watched := make(chan struct{}), sync.WaitGroup{}
	watched.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if open := beyondLoopback(t); len(open) > 0 {
				t.Error("listening on ", open)
				return
			}
		}
	})
	defer watched.Wait()
	defer close(over)

	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), SandboxVariable + "=pod"}
	serve := Container{Argv: []string{"python3", "-m", "http.server", strconv.Itoa(openPort)}, Env: env, Dir: "/"}
	server := func(change func(*Container)) Container {
		c := serve
		change(&c)
		return c
	}
	inOrder := []struct {
		name   string
		broken Container
		limit  int    // of the shim
		value  uint64 // with which it fails
		works  bool   // for some users
	}{
		{name: "missing folder", broken: server(func(c *Container) { c.Dir = "/no/such" })},
		{name: "closed folder", broken: server(func(c *Container) { c.Dir = closed }), works: os.Getuid() == 0},
		{name: "missing program", broken: server(func(c *Container) { c.Argv = []string{"no-such-program"} })},
		{name: "no program", broken: server(func(c *Container) { c.Argv = []string{""} })},
		{name: "no PATH", broken: server(func(c *Container) { c.Env = []string{"PATH="} })},
		{name: "not a program", broken: server(func(c *Container) { c.Argv = []string{"/etc/passwd"} })},
		{name: "too long", broken: server(func(c *Container) { c.Argv = append(c.Argv, strings.Repeat("x", 3<<20)) })},
		{name: "no file system", broken: server(func(c *Container) { c.Rootfs = &rootfs.Plan{Join: "/no/such"} })},
		{name: "no process", broken: serve, limit: unix.RLIMIT_NPROC, value: 1, works: os.Getuid() == 0},
		{name: "no descriptor", broken: serve, limit: unix.RLIMIT_NOFILE, value: 6},
		{name: "no descriptor soon", broken: serve, limit: unix.RLIMIT_NOFILE, value: 16, works: true},
	}
	for i, c := range inOrder {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		c.broken.ID = fmt.Sprint("broken", i)
		attempt := func() {
			if err := pod.Start(ctx, c.broken); err == nil && !c.works {
				t.Errorf("%s: it was started", c.name)
			}
		}
		if c.value > 0 {
			limited(t, pid, c.limit, c.value, attempt)
		} else {
			attempt()
		}
		_ = pod.Remove(ctx, c.broken.ID)
		next := serve
		next.ID = fmt.Sprint("next", i)
		if err := pod.Start(ctx, next); err != nil {
			t.Errorf("after %s: %v", c.name, err)
			cancel()
			continue
		}
		if err := waitForServer(); err != nil {
			t.Errorf("after %s: %v", c.name, err)
		}
		runExec(ctx, t, pod, next.ID, "no-such-program")
		if open := beyondLoopback(t); len(open) > 0 {
			t.Errorf("after %s something listens on %v", c.name, open)
		}
		_ = pod.Remove(ctx, next.ID)
		cancel()
	}
}

// waitForServer waits for the test's server, at the pod's address or elsewhere.
func waitForServer() error {
	for range 600 {
		for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			text, _ := os.ReadFile(file)
			for _, line := range strings.Split(string(text), "\n") {
				if f := strings.Fields(line); len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", openPort)) {
					return nil
				}
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("no server within 30 s")
}

// runExec runs a program in a container, which is expected to fail.
func runExec(ctx context.Context, t *testing.T, pod Client, id string, argv ...string) {
	t.Helper()
	session, err := pod.Exec(ctx, id, argv, false, nil, nil)
	if err == nil {
		session.Close()
		t.Errorf("%v was executed", argv)
	}
}
