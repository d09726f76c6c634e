package shim

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/sockets"
)

// isolated starts the shim of a pod that is to have mounts and users, after a change of its folder.
func isolated(t *testing.T, program string, change func(dir string)) (Client, []byte, error) {
	t.Helper()
	dir := t.TempDir()
	pod := Pod{ID: "pod", Policy: sockets.Policy{Kind: sockets.Pod, Address: netip.MustParseAddr("127.19.248.1")}, Users: true}
	if err := writeJSON(filepath.Join(dir, "pod.json"), pod); err != nil {
		t.Fatal(err)
	}
	change(dir)
	start := exec.Command(program, "pod", "--dir", dir)
	start.Env = []string{}
	out, err := start.CombinedOutput()
	client := Client{Dir: dir}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = client.Shutdown(ctx)
	})
	return client, out, err
}

// TestAPodThatIsToHaveMountsDoesNotStartWithout lets the shim find something in its way, where mounts work.
func TestAPodThatIsToHaveMountsDoesNotStartWithout(t *testing.T) {
	program := realShim(t)
	if err := MountsSupported(program); err != nil {
		t.Skip("pods cannot have mounts here: ", err)
	}
	pod, out, err := isolated(t, program, func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "stage"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if err == nil {
		state, _ := pod.ReadState()
		t.Fatalf("it has started, with mounts of its own: %v", state.Mounts)
	}
	if !strings.Contains(string(out), "stage") {
		t.Errorf("the reason is not told: %s", out)
	}
}

// TestAContainerWithAUserDoesNotStartAsAnother has a user whom the kernel refuses to show.
func TestAContainerWithAUserDoesNotStartAsAnother(t *testing.T) {
	program := realShim(t)
	if err := UsersSupported(program); err != nil {
		t.Skip("containers cannot have users here: ", err)
	}
	pod, out, err := isolated(t, program, func(string) {})
	if err != nil {
		t.Fatalf("%s%v", out, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for uid, works := range map[int]bool{1234: true, -1: false} {
		stage := t.TempDir()
		c := Container{
			ID: map[bool]string{true: "good", false: "refused"}[works], Argv: []string{"sleep", "600"}, Dir: "/",
			Env: []string{"PATH=" + os.Getenv("PATH")}, Rootfs: &rootfs.Plan{Stage: stage}, User: &User{uid, uid},
		}
		if err := pod.Start(ctx, c); (err == nil) != works {
			t.Errorf("a container of user %d: %v", uid, err)
		}
	}
}
