package vip

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/kubernetes/pkg/proxy"

	"labkit.dev/embedded/loopback"
)

// view is what kube-proxy on one node would know: which endpoints are its own, and which are near.
type view struct {
	labels    map[string]string // of the node, for its zone
	tracker   *proxy.EndpointsChangeTracker
	seen      map[string]*discovery.EndpointSlice
	endpoints proxy.EndpointsMap
}

func newView(node string) *view {
	return &view{seen: map[string]*discovery.EndpointSlice{}, endpoints: proxy.EndpointsMap{},
		tracker: proxy.NewEndpointsChangeTracker(v1.IPv4Protocol, node, nil, nil)}
}

// follow takes over the present slices.
func (v *view) follow(slices []*discovery.EndpointSlice) {
	follow(v.seen, slices, func(gone, present *discovery.EndpointSlice) {
		if present == nil {
			v.tracker.EndpointSliceUpdate(gone, true)
		} else {
			v.tracker.EndpointSliceUpdate(present, false)
		}
	})
	v.endpoints.Update(v.tracker)
}

// usable are the endpoints that kube-proxy on the node gives to connections by traffic policy Cluster and Local: the ready ones,
// the near ones where the Service prefers those, else those that still serve while they end.
func (v *view) usable(node string, name proxy.ServicePortName, port proxy.ServicePort) (cluster, local []Backend) {
	all, own, _, _ := proxy.CategorizeEndpoints(v.endpoints[name], port, node, v.labels)
	return backendsOf(all), backendsOf(own)
}

// backendsOf are endpoints as they are dialled on this machine.
func backendsOf(endpoints []proxy.Endpoint) []Backend {
	var out []Backend
	for _, e := range endpoints {
		a, err := netip.ParseAddr(e.IP())
		if err != nil {
			continue
		}
		number := uint16(e.Port())
		if loopback.IsPod(a) {
			a, number = loopback.Map(a), loopback.Port(number)
		}
		out = append(out, Backend{netip.AddrPortFrom(a, number)})
	}
	return out
}

// views are the present nodes' views, and by "" that of clients on no node.
func (c *Cluster) views() map[string]*view {
	nodes := map[string]map[string]string{"": nil}
	for _, n := range c.Nodes {
		nodes[n.Name] = n.Labels
	}
	for name := range c.known {
		if _, present := nodes[name]; !present {
			delete(c.known, name)
		}
	}
	var slices []*discovery.EndpointSlice
	for _, s := range c.Slices {
		if s.Labels[discovery.LabelServiceName] != "" {
			slices = append(slices, s)
		}
	}
	for name, labels := range nodes {
		v := c.known[name]
		if v == nil {
			v = newView(name)
			c.known[name] = v
		}
		v.labels = labels
		v.follow(slices)
	}
	return c.known
}

// servicePorts are the ports of the Services that this proxy is meant to serve.
func (c *Cluster) servicePorts() proxy.ServicePortMap {
	var services []*v1.Service
	for _, s := range c.Services {
		if _, other := s.Labels[labelProxyName]; !other {
			services = append(services, s)
		}
	}
	follow(c.seen, services, func(old, present *v1.Service) { c.tracker.Update(old, present) })
	c.ports.Update(c.tracker)
	return c.ports
}

type object interface {
	GetNamespace() string
	GetName() string
}

// follow calls changed for each object that is new, other than it was (both are given), or gone (the second one is nil).
func follow[T any, P interface {
	*T
	object
}](seen map[string]P, present []P, changed func(old, present P)) {
	here := map[string]bool{}
	for _, o := range present {
		key := o.GetNamespace() + "/" + o.GetName()
		here[key] = true
		if old := seen[key]; old != o {
			seen[key] = o
			changed(old, o)
		}
	}
	for key, old := range seen {
		if !here[key] {
			delete(seen, key)
			changed(old, nil)
		}
	}
}
