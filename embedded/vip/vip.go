// Package vip is what the network of a cluster without containers needs beside the upstream components: a Service
// proxy in user space, and the small controllers that on other clusters come with the cloud or the installer (the
// nodes' pod ranges, kubelet serving certificates, directories for persistent volumes).
package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"labkit.dev/embedded/loopback"
	"labkit.dev/embedded/services"
)

// connectionLimit is the most connections and UDP flows at once, if the system grants the descriptors.
const connectionLimit = 8192

// Config is what `kube vip` runs with.
type Config struct {
	Client     kubernetes.Interface
	Plan       loopback.Plan
	VolumesDir string // where persistent volumes are made; "" makes none
	Table      string // file for the Services that pods find by themselves; "" leaves all to the proxy
	Log        *slog.Logger
	Backoff    func() workqueue.TypedRateLimiter[string] // between attempts at an object; nil is our own
}

// Controller keeps the proxy in step with the API server.
type Controller struct {
	config   Config
	cluster  *Cluster // of the sync loop
	proxy    *Proxy
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	nodes    corelisters.NodeLister
	pods     corelisters.PodLister
	dirty    chan struct{}
	table    services.Publisher
	names    atomic.Pointer[map[netip.Addr]string] // first address of a node's pod range → node
	synced   atomic.Bool
	applied  atomic.Int64 // Unix nanoseconds of the last sync
}

// New returns a controller with its proxy; Run starts it.
func New(config Config) *Controller {
	if config.Backoff == nil {
		config.Backoff = backoff
	}
	c := &Controller{config: config, cluster: NewCluster(config.Plan), dirty: make(chan struct{}, 1), table: services.Publisher{Path: config.Table}}
	c.names.Store(&map[netip.Addr]string{})
	c.proxy = NewProxy(grantedConnections(), c.nodeOf, config.Log)
	return c
}

// grantedConnections raises the descriptor limit as far as allowed; a connection takes two descriptors and, while data
// flows, the pipes of its two splices.
func grantedConnections() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 128
	}
	limit.Cur = limit.Max
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	return int(max(64, min(connectionLimit, limit.Cur/8)))
}

// Run watches and serves until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	all := c.factory("")
	proxied := c.factory("!" + labelProxyName)
	headed := c.factory("!" + labelProxyName + ",!" + labelHeadless)
	services, slices, nodes := proxied.Core().V1().Services(), headed.Discovery().V1().EndpointSlices(), all.Core().V1().Nodes()
	pods := all.Core().V1().Pods()
	c.services, c.slices, c.nodes, c.pods = services.Lister(), slices.Lister(), nodes.Lister(), pods.Lister()
	changed := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { c.touch() }, UpdateFunc: func(any, any) { c.touch() }, DeleteFunc: func(any) { c.touch() },
	}
	for _, informer := range []cache.SharedIndexInformer{services.Informer(), slices.Informer(), nodes.Informer()} {
		if _, err := informer.AddEventHandler(changed); err != nil {
			return err
		}
	}
	portsOnly := func(object any) bool {
		pod, ok := object.(*v1.Pod)
		return !ok || hasHostPorts(pod) // else a deletion that was missed
	}
	if _, err := pods.Informer().AddEventHandler(cache.FilteringResourceEventHandler{FilterFunc: portsOnly, Handler: changed}); err != nil {
		return err
	}
	controllers := []func(context.Context, informers.SharedInformerFactory){c.runPodCIDRs, c.runServingCertificates}
	if c.config.VolumesDir != "" {
		controllers = append(controllers, c.runVolumes)
	}
	for _, run := range controllers {
		run(ctx, all)
	}
	for _, f := range []informers.SharedInformerFactory{all, proxied, headed} {
		f.Start(ctx.Done())
	}
	if !cache.WaitForCacheSync(ctx.Done(), services.Informer().HasSynced, slices.Informer().HasSynced, nodes.Informer().HasSynced, pods.Informer().HasSynced) {
		return context.Cause(ctx)
	}
	c.synced.Store(true)
	c.loop(ctx)
	c.proxy.Close()
	return nil
}

// factory makes informers for objects with the labels selected, without the parts of them that nothing here reads.
func (c *Controller) factory(selector string) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(c.config.Client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }),
		informers.WithTransform(func(object any) (any, error) {
			if m, ok := object.(metav1.Object); ok {
				m.SetManagedFields(nil)
			}
			switch o := object.(type) {
			case *v1.Node:
				o.Status.Images = nil
			case *v1.Pod:
				return trimmed(o), nil
			}
			return object, nil
		}))
}

func (c *Controller) touch() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

const (
	syncPause     = 10 * time.Millisecond // changes that come together are applied together
	syncRetry     = 2 * time.Second       // until an address that was in use is tried again, at first
	syncRetryMost = time.Minute
)

func (c *Controller) loop(ctx context.Context) {
	c.touch()
	var retry <-chan time.Time
	failed := troubles{log: c.config.Log}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.dirty:
		case <-retry:
		}
		time.Sleep(syncPause)
		retry = nil
		if pause := failed.next(c.sync()); pause > 0 {
			retry = time.After(pause)
		}
	}
}

// sync applies the present state and returns what could not be listened on.
func (c *Controller) sync() map[Listen]error {
	cluster := c.cluster
	var err error
	lists := []error{}
	cluster.Services, err = c.services.List(labels.Everything())
	lists = append(lists, err)
	cluster.Slices, err = c.slices.List(labels.Everything())
	lists = append(lists, err)
	cluster.Pods, err = c.pods.List(labels.Everything())
	lists = append(lists, err)
	cluster.Nodes, err = c.nodes.List(labels.Everything())
	if err := errors.Join(append(lists, err)...); err != nil {
		return map[Listen]error{{}: fmt.Errorf("cannot read the caches: %w", err)}
	}
	names := map[netip.Addr]string{}
	for _, n := range cluster.Nodes {
		if a, ok := internalIP(n); ok {
			names[rangeOf(a).Addr()] = n.Name
		}
	}
	c.names.Store(&names)
	rules := cluster.Rules()
	published := c.publish(rules, names)
	failed := c.proxy.Apply(rules)
	if published != nil && failed != nil { // none once the proxy is closed
		failed[Listen{}] = fmt.Errorf("cannot publish the Services: %w", published)
	}
	c.applied.Store(time.Now().UnixNano())
	return failed
}

// rangeOf is the range of the pods of the node with address a: its /24.
func rangeOf(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 24).Masked() }

// nodeOf is the name of the node that a pod's (mapped) address belongs to, or "".
func (c *Controller) nodeOf(a netip.Addr) string {
	return (*c.names.Load())[rangeOf(unmapped(a)).Addr()]
}

// Healthy tells whether the rules are in place.
func (c *Controller) Healthy() error {
	if !c.synced.Load() || c.applied.Load() == 0 {
		return errors.New("not synced with the API server yet")
	}
	return nil
}
