// Command kube is the multi-call binary of the embedded cluster: every component of a Kubernetes cluster in one file.
// The component is the name it is called by (argv[0]) or its first argument.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	metricsserver "sigs.k8s.io/metrics-server/cmd/metrics-server/app"

	"labkit.dev/embedded/vip"
)

// applet is one component.
type applet struct {
	about string
	run   func(name string, args []string) error
}

var applets = map[string]applet{
	"etcd":                    {"the cluster's database", runEtcd},
	"kube-apiserver":          {"the API server", command(apiserver.NewAPIServerCommand)},
	"kube-controller-manager": {"the built-in controllers", command(kcm.NewControllerManagerCommand)},
	"kube-scheduler":          {"the scheduler", command(func() *cobra.Command { return scheduler.NewSchedulerCommand() })},
	"metrics-server": {"the resource metrics API", command(func() *cobra.Command {
		return metricsserver.NewMetricsServerCommand(genericapiserver.SetupSignalContext().Done())
	})},
	"coredns": {"cluster DNS", runCoreDNS},
	"join":    {"find a cluster and trust it, as `kubeadm join` does", runJoin},
	"node":    {"a node: the kubelet with pods as processes", runNode},
	"vip":     {"Service proxy, pod ranges, kubelet certificates, volumes", func(_ string, args []string) error { return vip.Main(args, os.Stderr) }},
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if _, ok := applets[name]; !ok && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	component, ok := applets[name]
	if !ok {
		usage()
		os.Exit(2)
	}
	saveMemory(name == "etcd" || name == "kube-apiserver")
	if err := component.run(name, args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: kube COMPONENT [flags], or a link to kube named COMPONENT. Components:")
	names := make([]string, 0, len(applets))
	for name := range applets {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(os.Stderr, "  %-24s %s\n", name, applets[name].about)
	}
}

// garbagePercent is how much a component's heap may grow before it is collected: less than Go's 100, because a laptop
// that runs a whole cluster has less memory to spare than time.
const garbagePercent = 50

// startTime is how long a component that everyone waits for at first keeps to Go's 100: the cluster starts a second of
// CPU time sooner. Then it gives back the 45 MB that this has cost.
const startTime = time.Minute

func saveMemory(waitedFor bool) {
	switch {
	case os.Getenv("GOGC") != "":
	case waitedFor:
		time.AfterFunc(startTime, func() { debug.SetGCPercent(garbagePercent) })
	default:
		debug.SetGCPercent(garbagePercent)
	}
}

// command runs an upstream component's own cobra command; its flags, version output and exit codes are upstream's.
func command(build func() *cobra.Command) func(string, []string) error {
	return func(name string, args []string) error {
		os.Args = append([]string{name}, args...)
		cmd := build()
		cmd.SetArgs(args)
		os.Exit(cli.Run(cmd))
		return nil
	}
}

func runEtcd(name string, args []string) error {
	etcdmain.Main(append([]string{name}, args...))
	return nil
}

func runCoreDNS(name string, args []string) error {
	os.Args = append([]string{name}, args...)
	coremain.Run()
	return nil
}
