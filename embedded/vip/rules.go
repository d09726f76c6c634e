package vip

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/kubernetes/pkg/proxy"

	"labkit.dev/embedded/loopback"
)

// Cluster is what the rules are made from. What kube-proxy's own trackers know of it is kept from one call of Rules to the next.
type Cluster struct {
	Plan     loopback.Plan
	Services []*v1.Service
	Slices   []*discovery.EndpointSlice
	Nodes    []*v1.Node
	Pods     []*v1.Pod // of those with host ports

	tracker *proxy.ServiceChangeTracker
	seen    map[string]*v1.Service
	ports   proxy.ServicePortMap
	known   map[string]*view // by node
}

// NewCluster returns an empty cluster.
func NewCluster(plan loopback.Plan) *Cluster {
	return &Cluster{Plan: plan, tracker: proxy.NewServiceChangeTracker(v1.IPv4Protocol, nil, nil), seen: map[string]*v1.Service{},
		ports: proxy.ServicePortMap{}, known: map[string]*view{}}
}

// Rules returns what has to be listened on and where connections go. A port without a usable endpoint has no rule: its
// connections are refused. Each port is served where the address plan says. Where no other one is, it is also served as it is,
// for programs of this machine that do not translate, and a low port at the place of its shifted number, for those that translate
// what has been translated.
func (c *Cluster) Rules() map[Listen]Rule {
	rules := ruleSet{map[Listen]Rule{}, map[Listen]Rule{}}
	ports, views := c.servicePorts(), c.views()
	byName := func(a, b proxy.ServicePortName) int { return strings.Compare(a.String(), b.String()) }
	for _, name := range slices.SortedFunc(maps.Keys(ports), byName) {
		c.addPort(rules, name, ports[name], views)
	}
	for _, pod := range c.Pods {
		addHostPorts(rules.planned, pod)
	}
	for at, rule := range rules.extra {
		if _, taken := rules.planned[at]; !taken {
			rules.planned[at] = rule
		}
	}
	return rules.planned
}

// ruleSet are rules where the address plan has them, and at other places.
type ruleSet struct{ planned, extra map[Listen]Rule }

func (r ruleSet) add(network string, at netip.AddrPort, rule Rule) {
	if !rule.served() {
		return
	}
	rule = rule.simplified()
	served := loopback.Served(at)
	if key := (Listen{network, served}); !r.planned[key].served() {
		r.planned[key] = rule
	}
	for _, other := range []netip.AddrPort{at, loopback.Served(served)} {
		if key := (Listen{network, other}); other != served && !r.extra[key].served() {
			r.extra[key] = rule
		}
	}
}

const (
	labelProxyName = "service.kubernetes.io/service-proxy-name"
	labelHeadless  = v1.IsHeadlessService
)

func (c *Cluster) addPort(rules ruleSet, name proxy.ServicePortName, port proxy.ServicePort, views map[string]*view) {
	network := strings.ToLower(string(port.Protocol()))
	if network != "tcp" && network != "udp" {
		return
	}
	rule := Rule{Port: fmt.Sprintf("%s:%s", name.NamespacedName, name.Port)}
	if port.SessionAffinityType() == v1.ServiceAffinityClientIP {
		rule.Affinity = time.Duration(port.StickyMaxAgeSeconds()) * time.Second
	}
	add := func(a netip.Addr, number int, rule Rule) {
		rules.add(network, netip.AddrPortFrom(a, uint16(number)), rule)
	}
	internal, external, local := rule, rule, map[string][]Backend{}
	external.Backends, _ = views[""].usable("", name, port)
	external.OnNode = map[string][]Backend{}
	for node, view := range views {
		if node != "" {
			external.OnNode[node], local[node] = view.usable(node, name, port)
		}
	}
	internal.Backends, internal.OnNode = external.Backends, external.OnNode
	if port.InternalPolicyLocal() {
		internal.Backends, internal.OnNode = nil, local
	}
	if a, ok := netip.AddrFromSlice(port.ClusterIP()); ok && c.Plan.Services().Contains(a.Unmap()) {
		add(a.Unmap(), port.Port(), internal)
	}
	for _, ip := range slices.Concat(port.ExternalIPs(), port.LoadBalancerVIPs()) {
		a, _ := netip.AddrFromSlice(ip)
		if a = a.Unmap(); c.Plan.LoadBalancers().Contains(a) || c.Plan.Services().Contains(a) {
			add(a, port.Port(), external)
		}
	}
	if port.NodePort() == 0 {
		return
	}
	for a, node := range c.nodeAddresses() {
		at := rule // the node's own kube-proxy decides, wherever the client is
		switch {
		case port.ExternalPolicyLocal():
			at.Backends = local[node]
		case node == "":
			at.Backends = external.Backends
		default:
			at.Backends = external.OnNode[node]
		}
		add(loopback.Map(a), port.NodePort(), at)
	}
}

// nodeAddresses are the nodes' own addresses in the pod range, and the control plane's, which has no Node object.
func (c *Cluster) nodeAddresses() map[netip.Addr]string {
	out := map[netip.Addr]string{controlPlane(c.Plan): ""}
	for _, n := range c.Nodes {
		if a, ok := internalIP(n); ok && pods(c.Plan).Contains(a) {
			out[a] = n.Name
		}
	}
	return out
}

func internalIP(n *v1.Node) (netip.Addr, bool) {
	for _, a := range n.Status.Addresses {
		if a.Type == v1.NodeInternalIP {
			ip, err := netip.ParseAddr(a.Address)
			return ip, err == nil && ip.Is4()
		}
	}
	return netip.Addr{}, false
}
