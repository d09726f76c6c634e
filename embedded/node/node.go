// Package node runs the upstream kubelet (cmd/kubelet/app) without privileges: pods are processes, volumes are
// directories, and capacity is what the node was declared to have. TLS bootstrap, certificate rotation, authentication,
// leases, probes, evictions and everything else are upstream's own flow.
package node

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	internalapi "k8s.io/cri-api/pkg/apis"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet"
	"k8s.io/kubernetes/pkg/util/oom"
	"k8s.io/kubernetes/pkg/volume/util/hostutil"
	"k8s.io/kubernetes/pkg/volume/util/subpath"
)

// Options are the flags of `kube node`.
type Options struct {
	Name, Config, Kubeconfig, BootstrapKubeconfig, CertDir string
	RootDir, PodsDir, ImagesDir, Shim                      string
	NodeIP                                                 netip.Addr
	PodCIDR                                                netip.Prefix
	CPUs                                                   int
	MemoryBytes                                            int64
	Labels                                                 map[string]string
	ProviderID                                             string
	PodProcesses                                           uint64 // podPidsLimit of the configuration; 0 is no limit
}

// Runtime is what a node needs of the container runtime.
type Runtime interface {
	internalapi.RuntimeService
	Images() internalapi.ImageManagerService
	Usage() (cpuNanos, workingSetBytes uint64)
}

// ParseFlags reads the command line of `kube node`. A missing or wrong flag is an error that names it.
func ParseFlags(args []string, output io.Writer) (*Options, error) {
	o := &Options{Labels: map[string]string{}}
	f := flag.NewFlagSet("node", flag.ContinueOnError)
	f.SetOutput(output)
	f.StringVar(&o.Name, "name", "", "name of the node")
	f.StringVar(&o.Config, "config", "", "KubeletConfiguration file (kubelet.config.k8s.io/v1beta1)")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the node; written by the TLS bootstrap if it does not exist")
	f.StringVar(&o.BootstrapKubeconfig, "bootstrap-kubeconfig", "", "kubeconfig with the bootstrap token")
	f.StringVar(&o.CertDir, "cert-dir", "", "directory of the kubelet's certificates")
	f.StringVar(&o.RootDir, "root-dir", "", "the kubelet's root directory")
	f.StringVar(&o.PodsDir, "pods-dir", "", "directory of the container runtime's state")
	f.StringVar(&o.ImagesDir, "images-dir", "", "directory of the images")
	f.StringVar(&o.Shim, "shim", "", "the shim program")
	f.TextVar(&o.NodeIP, "node-ip", netip.Addr{}, "address of the node in the pod range, e.g. 198.18.1.1")
	f.TextVar(&o.PodCIDR, "pod-cidr", netip.Prefix{}, "range of the node's pods, e.g. 198.18.1.0/24")
	f.IntVar(&o.CPUs, "cpus", 2, "CPU capacity in cores")
	memory := f.String("memory", "4Gi", "memory capacity as a quantity")
	labels := f.String("node-labels", "", "labels at registration, key=value,…")
	f.StringVar(&o.ProviderID, "provider-id", "", "spec.providerID, e.g. labkit://lab/worker-1")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"name": o.Name, "config": o.Config, "kubeconfig": o.Kubeconfig, "cert-dir": o.CertDir,
		"root-dir": o.RootDir, "pods-dir": o.PodsDir, "images-dir": o.ImagesDir, "shim": o.Shim} {
		if value == "" {
			return nil, fmt.Errorf("--%s is missing", name)
		}
	}
	if !o.NodeIP.IsValid() || !o.PodCIDR.IsValid() {
		return nil, errors.New("--node-ip and --pod-cidr are missing")
	}
	quantity, err := resource.ParseQuantity(*memory)
	if err != nil || quantity.Value() <= 0 || o.CPUs <= 0 {
		return nil, fmt.Errorf("--cpus %d --memory %q: give whole cores and a quantity such as 4Gi", o.CPUs, *memory)
	}
	o.MemoryBytes = quantity.Value()
	for _, pair := range strings.FieldsFunc(*labels, func(r rune) bool { return r == ',' }) {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("--node-labels: %q is not key=value", pair)
		}
		o.Labels[key] = value
	}
	for _, path := range []*string{&o.Config, &o.Kubeconfig, &o.BootstrapKubeconfig, &o.CertDir, &o.RootDir, &o.PodsDir, &o.ImagesDir, &o.Shim} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return nil, err
			}
		}
	}
	if len(o.RootDir) > rootDirLimit {
		return nil, fmt.Errorf("--root-dir %s has %d bytes, more than %d: the kubelet's sockets in it would have too long a name; use a shorter state directory", o.RootDir, len(o.RootDir), rootDirLimit)
	}
	return o, nil
}

// rootDirLimit leaves room in a socket's 107 bytes for /pod-resources/ and a temporary name.
const rootDirLimit = 80

// Run runs the node until SIGTERM or SIGINT, or returns why the kubelet could not start. Pods go on when it ends.
func Run(o *Options, open func(*Options) (Runtime, error)) error {
	ctx := genericapiserver.SetupSignalContext()
	server, err := loadServer(ctx, o)
	if err != nil {
		return err
	}
	o.PodProcesses = uint64(max(0, server.PodPidsLimit))
	for _, dir := range []string{o.RootDir, o.PodsDir, o.ImagesDir, o.CertDir, server.PodLogsDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	runtime, err := open(o)
	if err != nil {
		return fmt.Errorf("container runtime: %w", err)
	}
	endpoint, err := ServeCRI(ctx, filepath.Join(filepath.Dir(o.PodsDir), "cri.sock"), runtime, runtime.Images())
	if err != nil {
		return err
	}
	server.ContainerRuntimeEndpoint, server.ImageServiceEndpoint = endpoint, endpoint
	deps, err := dependencies(ctx, o, server, runtime)
	if err != nil {
		return err
	}
	return kubeletapp.Run(ctx, server, deps, utilfeature.DefaultFeatureGate)
}

// dependencies are upstream's with everything replaced that would need root or would touch the host.
func dependencies(ctx context.Context, o *Options, server *options.KubeletServer, runtime Runtime) (*kubelet.Dependencies, error) {
	runRootless()
	deps, err := kubeletapp.UnsecuredDependencies(ctx, server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return nil, err
	}
	stats := newMachineStats(Machine{Name: o.Name, CPUs: o.CPUs, MemoryBytes: o.MemoryBytes, RootDir: o.RootDir, ImagesDir: o.ImagesDir}, runtime)
	manager, err := newContainerManager(&server.KubeletConfiguration, stats)
	if err != nil {
		return nil, err
	}
	mounter := linkMounter{}
	deps.CAdvisorInterface, deps.ContainerManager = stats, manager
	deps.OSInterface = confinedOS{}
	deps.HostUtil = sharedHost{hostutil.NewHostUtil()}
	deps.Mounter, deps.Subpather = mounter, plainSubpath{subpath.New(mounter)}
	deps.OOMAdjuster = &oom.OOMAdjuster{ApplyOOMScoreAdj: func(int, int) error { return nil }}
	deps.VolumePlugins, deps.DynamicPluginProber = volumePlugins(), nil
	deps.Options = []kubelet.Option{acceptNodeIP(net.IP(o.NodeIP.AsSlice()))}
	return deps, nil
}
