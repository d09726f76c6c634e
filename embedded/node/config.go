package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation/field"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/eviction"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig/configfiles"
	utilfs "k8s.io/kubernetes/pkg/util/filesystem"
)

// loadServer reads and validates the KubeletConfiguration as cmd/kubelet/app does, then sets what cannot be otherwise
// on this kind of node. A file that upstream refuses is refused with upstream's words.
func loadServer(ctx context.Context, o *Options) (*options.KubeletServer, error) {
	config, err := loadConfig(ctx, o.Config)
	if err != nil {
		return nil, err
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(config.FeatureGates); err != nil {
		return nil, fmt.Errorf("featureGates in %s: %w", o.Config, err)
	}
	logs.InitLogs()
	if err := logsapi.ValidateAndApplyAsField(&config.Logging, utilfeature.DefaultFeatureGate, field.NewPath("logging")); err != nil {
		return nil, fmt.Errorf("logging in %s: %w", o.Config, err)
	}
	confine(config, o)
	if err := validation.ValidateKubeletConfiguration(config, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Config, err)
	}
	flags := options.NewKubeletFlags()
	flags.HostnameOverride, flags.NodeIP = o.Name, o.NodeIP.String()
	flags.KubeletConfigFile, flags.KubeConfig, flags.BootstrapKubeconfig = o.Config, o.Kubeconfig, o.BootstrapKubeconfig
	flags.CertDirectory, flags.RootDirectory = o.CertDir, o.RootDir
	// One more than the default, so that `kubectl logs --previous` works while the last container has ended and not restarted.
	flags.MaxPerPodContainerCount = 2
	flags.NodeLabels, config.ProviderID = o.Labels, o.ProviderID
	if err := options.ValidateKubeletFlags(flags); err != nil {
		return nil, err
	}
	utilfeature.DefaultMutableFeatureGate.AddMetrics()
	return &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *config}, nil
}

func loadConfig(ctx context.Context, path string) (*kubeletconfig.KubeletConfiguration, error) {
	loader, err := configfiles.NewFsLoader(&utilfs.DefaultFs{}, path)
	if err != nil {
		return nil, err
	}
	config, err := loader.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("failed to load kubelet config file, path: %s, error: %w", path, err)
	}
	if config.EvictionHard == nil {
		config.EvictionHard = eviction.DefaultEvictionHard
	}
	return config, nil
}

// confine sets the fields that a node without root and without a machine of its own cannot have otherwise. What is about
// cgroups may stay: the container manager has none and ignores it.
func confine(c *kubeletconfig.KubeletConfiguration, o *Options) {
	c.FailCgroupV1, c.FailSwapOn = false, false
	c.MakeIPTablesUtilChains = false
	c.ProtectKernelDefaults = false
	c.ReadOnlyPort = 0
	// A kubelet removes logs of pods that it does not know, so that no other node's may be in there.
	c.PodLogsDir = inASCII(filepath.Join(filepath.Dir(o.PodsDir), "logs"))
	c.PodCIDR = o.PodCIDR.String()
	if c.ContainerRuntimeEndpoint == "" {
		c.ContainerRuntimeEndpoint = "unix:///run/labkit/cri.sock" // replaced when the runtime is up
	}
}

// inASCII names a path by the working directory where it has other letters, such as a home's: the kubelet takes ASCII only
// for its pods' logs. A path that is not below the working directory stays, and the kubelet says what is wrong with it.
func inASCII(path string) string {
	here, err := os.Getwd()
	rest, outside := filepath.Rel(here, path)
	if err != nil || outside != nil || !filepath.IsLocal(rest) || !strings.ContainsFunc(path, func(r rune) bool { return r > unicode.MaxASCII }) {
		return path
	}
	return filepath.Join("/proc/self/cwd", rest)
}
