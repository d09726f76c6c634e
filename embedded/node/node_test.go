package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/userns"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	apitest "k8s.io/cri-api/pkg/apis/testing"
	criclient "k8s.io/cri-client/pkg"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/volume/util/subpath"
	utilexec "k8s.io/utils/exec"
	"k8s.io/utils/ptr"
)

func flags(extra ...string) []string {
	return append([]string{"--name", "worker-1", "--config", "k.yaml", "--kubeconfig", "k", "--cert-dir", "pki", "--root-dir", "/r", "--pods-dir", "/p",
		"--images-dir", "/i", "--shim", "/s", "--node-ip", "198.18.1.1", "--pod-cidr", "198.18.1.0/24"}, extra...)
}

func TestFlags(t *testing.T) {
	o, err := ParseFlags(flags("--cpus", "3", "--memory", "512Mi", "--node-labels", "a=b,c=d"), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if o.CPUs != 3 || o.MemoryBytes != 512<<20 || o.Labels["c"] != "d" || !filepath.IsAbs(o.Config) {
		t.Errorf("parsed %+v", o)
	}
	for want, args := range map[string][]string{
		"--config": flags("--config", ""), "--memory": flags("--memory", "lots"), "--cpus": flags("--cpus", "0"),
		"--node-labels": flags("--node-labels", "a"), "--node-ip": flags()[:18], "80": flags("--root-dir", "/"+strings.Repeat("r", 80)),
	} {
		if _, err := ParseFlags(args, os.Stderr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v does not name %s", args, err, want)
		}
	}
}

const header = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

func load(t *testing.T, text string) (*Options, error) {
	t.Helper()
	dir := t.TempDir()
	o, err := ParseFlags(flags("--config", filepath.Join(dir, "kubelet.yaml"), "--root-dir", filepath.Join(dir, "r"), "--images-dir", dir), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = loadConfig(context.Background(), o.Config)
	return o, err
}

func TestWrongConfigurationIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"unknown kind": "kind: Nonsense\napiVersion: v1\n",
		"no YAML":      header + "  - :",
		"wrong type":   header + "maxPods: many\n",
	} {
		if _, err := load(t, text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestConfineKeepsWhatTheFileSays(t *testing.T) {
	o, err := load(t, header+"maxPods: 7\nmakeIPTablesUtilChains: true\nreadOnlyPort: 10255\nevictionHard: {memory.available: 300Mi}\n")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := loadConfig(context.Background(), o.Config)
	confine(c, o)
	if c.MaxPods != 7 || c.EvictionHard["memory.available"] != "300Mi" || c.PodCIDR != "198.18.1.0/24" {
		t.Errorf("the file's settings were lost: %+v", c)
	}
	if c.MakeIPTablesUtilChains || c.ReadOnlyPort != 0 {
		t.Errorf("the host is not safe from %+v", c)
	}
}

func TestEachNodeOfAClusterHasItsOwnPodLogs(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"worker-1", "worker-2"} {
		o, err := load(t, header)
		if err != nil {
			t.Fatal(err)
		}
		o.RootDir, o.PodsDir = "/cluster/kubelet-"+name, "/cluster/nodes/"+name+"/pods"
		c, _ := loadConfig(context.Background(), o.Config)
		confine(c, o)
		if seen[c.PodLogsDir] || filepath.Dir(c.PodLogsDir) != filepath.Dir(o.PodsDir) {
			t.Errorf("%s keeps its pods' logs in %s", name, c.PodLogsDir)
		}
		seen[c.PodLogsDir] = true
	}
}

func TestTheKubeletSeesItsPodsLogsByAnASCIIPath(t *testing.T) {
	home := filepath.Join(t.TempDir(), "Ünï o'Neil home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	o, err := load(t, header)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(home)
	o.PodsDir = filepath.Join(home, "nodes/worker-1/pods")
	c, _ := loadConfig(context.Background(), o.Config)
	confine(c, o)
	if errs := validation.ValidateKubeletConfiguration(c, utilfeature.DefaultFeatureGate); errs != nil && strings.Contains(errs.Error(), "ASCII") {
		t.Error(errs)
	}
	if err := os.MkdirAll(c.PodLogsDir, 0o700); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(home, "nodes/worker-1/logs")); err != nil {
		t.Errorf("%s leads elsewhere: %v", c.PodLogsDir, err)
	}
}

// used is a runtime whose pods use what the test says.
type used struct {
	*apitest.FakeRuntimeService
	cpu, memory uint64
}

func (u *used) Usage() (uint64, uint64) { return u.cpu, u.memory }

func statistics(t *testing.T, u *used) *machineStats {
	t.Helper()
	return newMachineStats(Machine{Name: "worker-1", CPUs: 2, MemoryBytes: 4 << 30, RootDir: t.TempDir(), ImagesDir: t.TempDir()}, u)
}

func TestAllocatableIsWhatReservationsLeave(t *testing.T) {
	o, err := load(t, header+"kubeReserved: {cpu: 200m, memory: 512Mi}\nsystemReserved: {cpu: 300m, memory: 512Mi}\nevictionHard: {memory.available: 256Mi}\n")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := loadConfig(context.Background(), o.Config)
	stats := statistics(t, &used{FakeRuntimeService: apitest.NewFakeRuntimeService()})
	m, err := newContainerManager(c, stats)
	if err != nil {
		t.Fatal(err)
	}
	reserved := m.GetNodeAllocatableReservation()
	if cpu, memory := reserved.Cpu().String(), reserved.Memory().String(); cpu != "500m" || memory != "1280Mi" {
		t.Errorf("reserved are cpu %s, memory %s; want 500m, 1280Mi", cpu, memory)
	}
	allocatable := m.GetNodeAllocatableAbsolute()
	if got := allocatable[v1.ResourceMemory]; got.String() != "3Gi" || stats.podsLimit != 3<<30 {
		t.Errorf("pods may use %v, limit %d; want 3Gi", &got, stats.podsLimit)
	}
	for _, wrong := range []string{"kubeReserved: {memory: 8Gi}\n", "systemReserved: {cpu: '3'}\n"} {
		o, _ := load(t, header+wrong)
		c, _ := loadConfig(context.Background(), o.Config)
		m, err := newContainerManager(c, stats)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Start(context.Background(), nil, nil, nil, nil, nil, nil, true); err == nil || !strings.Contains(err.Error(), "invalid Node Allocatable") {
			t.Errorf("%s: started: %v", wrong, err)
		}
	}
}

func TestMemoryAvailableIsCapacityLessUsage(t *testing.T) {
	u := &used{FakeRuntimeService: apitest.NewFakeRuntimeService(), cpu: 1e9, memory: 1 << 30}
	s := statistics(t, u)
	root := s.root()
	_, own := ownUsage()
	if got := root.Stats[0].Memory.WorkingSet; got < 1<<30 || got > 1<<30+2*own || root.Spec.Memory.Limit != 4<<30 {
		t.Errorf("working set %d of limit %d with 1 GiB of pods and %d of its own", got, root.Spec.Memory.Limit, own)
	}
	if own == 0 {
		t.Error("a process that uses no memory")
	}
	u.memory = 100 << 30
	if got := s.root().Stats[0].Memory.WorkingSet; got != 4<<30 {
		t.Errorf("more used than there is: %d", got)
	}
}

func TestMachineCPUTimeNeverDecreases(t *testing.T) {
	u := &used{FakeRuntimeService: apitest.NewFakeRuntimeService(), cpu: 5e9}
	s := statistics(t, u)
	before := s.pods().Stats[0].Cpu.Usage.Total
	u.cpu = 2e9 // a pod was removed
	between := s.pods().Stats[0].Cpu.Usage.Total
	u.cpu = 3e9
	after := s.pods().Stats[0].Cpu.Usage.Total
	if before != 5e9 || between != 5e9 || after != 6e9 {
		t.Errorf("CPU time went %d, %d, %d; want 5, 5, 6 s", before, between, after)
	}
}

func TestResizedPodKeepsItsOtherSettings(t *testing.T) {
	groups := newPodGroups(cm.NewStubContainerManager())
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{
		Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi")}}}}}}
	read := func() (memory, quota int64, shares uint64) {
		m, err := groups.GetPodCgroupConfig(pod, v1.ResourceMemory)
		if err != nil {
			t.Fatal(err)
		}
		c, err := groups.GetPodCgroupConfig(pod, v1.ResourceCPU)
		if err != nil {
			t.Fatal(err)
		}
		return *m.Memory, *c.CPUQuota, *c.CPUShares // the kubelet dereferences them too
	}
	if memory, quota, _ := read(); memory != 64<<20 || quota != -1 {
		t.Errorf("at first memory %d, quota %d", memory, quota)
	}
	if err := groups.SetPodCgroupConfig(klog.Background(), pod, &cm.ResourceConfig{CPUShares: ptr.To[uint64](512)}); err != nil {
		t.Fatal(err)
	}
	if memory, quota, shares := read(); memory != 64<<20 || quota != -1 || shares != 512 {
		t.Errorf("after setting the shares: memory %d, quota %d, shares %d", memory, quota, shares)
	}
}

func TestAcceptNodeIP(t *testing.T) {
	k := &kubelet.Kubelet{}
	acceptNodeIP(net.ParseIP("198.18.1.1"))(k)
	check := reflect.ValueOf(k).Elem().FieldByName("nodeIPValidator")
	if check.IsNil() {
		t.Fatal("the kubelet's check of its address was not replaced")
	}
}

func TestRootlessIsBelieved(t *testing.T) {
	old := inUserNamespace
	defer func() { inUserNamespace = old }()
	inUserNamespace = func() bool { return true }
	if !userns.RunningInUserNS() {
		t.Error("the kubelet would not see that it runs rootless")
	}
}

func TestHostDirectoriesAreLeftAlone(t *testing.T) {
	os := confinedOS{}
	link := kubeletLogLinks + "/labkit-test"
	if err := errors.Join(os.MkdirAll(kubeletLogLinks, 0o755), os.Symlink("/nowhere", link), os.Remove(link)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(link); err == nil {
		t.Error("a link was made in the host's log directory")
	}
}

func TestBindIsALink(t *testing.T) {
	dir := t.TempDir()
	source, target := filepath.Join(dir, "disk"), filepath.Join(dir, "volume")
	for _, d := range []string{source, target} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m := linkMounter{}
	for range 2 { // a second time is a restarted node
		if err := m.Mount(source, target, "", []string{"bind"}); err != nil {
			t.Fatal(err)
		}
	}
	if mounted, err := m.IsMountPoint(target); !mounted || err != nil {
		t.Errorf("mounted: %v, %v", mounted, err)
	}
	if err := os.WriteFile(filepath.Join(target, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(target); err != nil {
		t.Fatal(err)
	}
	if mounted, _ := m.IsMountPoint(target); mounted {
		t.Error("still mounted")
	}
	if _, err := os.Stat(filepath.Join(source, "f")); err != nil {
		t.Errorf("unmounting lost the data: %v", err)
	}
	full := filepath.Join(dir, "full")
	if err := os.MkdirAll(filepath.Join(full, "precious"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.Mount(source, full, "", []string{"bind"}); err == nil {
		t.Error("a directory with content was replaced")
	}
	if err := m.Mount("server:/x", target, "nfs", nil); err == nil {
		t.Error("nfs was mounted")
	}
}

func TestSubPathStaysInItsVolume(t *testing.T) {
	dir := t.TempDir()
	volume := filepath.Join(dir, "volume")
	if err := os.MkdirAll(filepath.Join(volume, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(volume, "escape")); err != nil {
		t.Fatal(err)
	}
	s := plainSubpath{}
	path, done, err := s.PrepareSafeSubpath(subpath.Subpath{VolumePath: volume, Path: filepath.Join(volume, "sub")})
	if err != nil || filepath.Base(path) != "sub" {
		t.Fatalf("%s, %v", path, err)
	}
	done()
	if path, _, err := s.PrepareSafeSubpath(subpath.Subpath{VolumePath: volume, Path: filepath.Join(volume, "escape")}); err == nil {
		t.Errorf("a link led out to %s", path)
	}
}

// failing is a runtime whose calls fail in the ways that the kubelet tells apart.
type failing struct{ *apitest.FakeRuntimeService }

func (failing) ExecSync(_ context.Context, id string, _ []string, _ time.Duration) ([]byte, []byte, error) {
	switch id {
	case "exit":
		return []byte("out"), []byte("err"), utilexec.CodeExitError{Err: errors.New("exit status 3"), Code: 3}
	case "slow":
		return nil, nil, criclient.ErrCommandTimedOut
	}
	return []byte("fine"), nil, nil
}

func (failing) ContainerStatus(context.Context, string, bool) (*cri.ContainerStatusResponse, error) {
	return nil, status.Error(codes.NotFound, "no such container")
}

// TestCRI talks to the server as the kubelet does, with its own client, in a directory whose path is too long for a socket.
func TestCRI(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	fake := apitest.NewFakeRuntimeService()
	path := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "cri.sock")
	endpoint, err := ServeCRI(ctx, path, failing{fake}, apitest.NewFakeImageService())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	client, err := criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(5 * time.Second).Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if out, _, err := client.ExecSync(ctx, "ok", []string{"true"}, time.Second); err != nil || string(out) != "fine" {
		t.Errorf("a successful command: %q, %v", out, err)
	}
	out, _, err := client.ExecSync(ctx, "exit", []string{"false"}, time.Second)
	var exit utilexec.CodeExitError
	if !errors.As(err, &exit) || exit.Code != 3 || string(out) != "out" {
		t.Errorf("a failed command: %q, %v", out, err)
	}
	if _, _, err := client.ExecSync(ctx, "slow", []string{"sleep"}, time.Second); !errors.Is(err, criclient.ErrCommandTimedOut) {
		t.Errorf("a command that timed out: %v", err)
	}
	if _, err := client.ContainerStatus(ctx, "gone", false); status.Code(err) != codes.NotFound {
		t.Errorf("a container that is gone: %v", err)
	}
	config := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"}}
	id, err := client.RunPodSandbox(ctx, config, "")
	if err != nil {
		t.Fatal(err)
	}
	if pods, err := client.ListPodSandbox(ctx, &cri.PodSandboxFilter{Id: id}); err != nil || len(pods) != 1 || pods[0].Metadata.Name != "p" {
		t.Errorf("the pod: %v, %v", pods, err)
	}
}

func TestVolumesWithLockedDirectoriesAreTornDown(t *testing.T) {
	root := filepath.Join(t.TempDir(), "cache")
	locked := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(locked, "file"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{locked, filepath.Dir(locked)} {
		if err := os.Chmod(dir, 0); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 && os.RemoveAll(root) == nil {
		t.Fatal("the directories were not locked")
	}
	if err := openDirectories(root); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Error(err)
	}
	if err := openDirectories(root); err != nil {
		t.Errorf("a directory that is gone: %v", err)
	}
}
