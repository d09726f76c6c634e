package vip

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"labkit.dev/embedded/loopback"
)

// Cluster is what the rules are made from.
type Cluster struct {
	Plan     loopback.Plan
	Services []*v1.Service
	Slices   []*discovery.EndpointSlice
	Nodes    []*v1.Node
	Pods     []*v1.Pod // of those with host ports
}

// Rules returns what has to be listened on and where connections go. A port without a usable endpoint has no rule: its
// connections are refused. Service ports below 1024 are served shifted and, where the system permits, as they are.
func (c *Cluster) Rules() map[Listen]Rule {
	slices := map[string][]*discovery.EndpointSlice{}
	for _, s := range c.Slices {
		if name := s.Labels[discovery.LabelServiceName]; name != "" && s.AddressType == discovery.AddressTypeIPv4 {
			key := s.Namespace + "/" + name
			slices[key] = append(slices[key], s)
		}
	}
	nodes := c.nodeAddresses()
	rules := map[Listen]Rule{}
	for _, s := range c.Services {
		if !proxied(s) {
			continue
		}
		for i := range s.Spec.Ports {
			c.addPort(rules, s, &s.Spec.Ports[i], slices[s.Namespace+"/"+s.Name], nodes)
		}
	}
	for _, pod := range c.Pods {
		addHostPorts(rules, pod)
	}
	return rules
}

// proxied tells whether this proxy is meant to serve s (kube-proxy's rules).
func proxied(s *v1.Service) bool {
	_, other := s.Labels[labelProxyName]
	return !other && s.Spec.Type != v1.ServiceTypeExternalName && s.Spec.ClusterIP != "" && s.Spec.ClusterIP != v1.ClusterIPNone
}

const (
	labelProxyName = "service.kubernetes.io/service-proxy-name"
	labelHeadless  = v1.IsHeadlessService
)

func (c *Cluster) addPort(rules map[Listen]Rule, s *v1.Service, port *v1.ServicePort, slices []*discovery.EndpointSlice, nodes map[netip.Addr]string) {
	network := strings.ToLower(string(port.Protocol))
	if network != "tcp" && network != "udp" {
		return
	}
	backends := usable(slices, port)
	rule := Rule{Port: fmt.Sprintf("%s/%s:%s", s.Namespace, s.Name, port.Name), Backends: backends, Affinity: affinityOf(s)}
	add := func(a netip.Addr, port uint16, rule Rule) {
		if len(rule.Backends) == 0 || (rule.Local != "" && !hasNode(rule.Backends, rule.Local)) {
			return
		}
		rules[Listen{network, netip.AddrPortFrom(a, port)}] = rule
		shifted := Listen{network, netip.AddrPortFrom(a, loopback.Port(port))}
		if _, taken := rules[shifted]; !taken {
			rules[shifted] = rule
		}
	}
	internal := rule
	internal.ClientLocal = s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == v1.ServiceInternalTrafficPolicyLocal
	if a, err := netip.ParseAddr(s.Spec.ClusterIP); err == nil && c.Plan.Services().Contains(a) {
		add(a, uint16(port.Port), internal)
	}
	for _, text := range externalAddresses(s) {
		if a, err := netip.ParseAddr(text); err == nil && (c.Plan.LoadBalancers().Contains(a) || c.Plan.Services().Contains(a)) {
			add(a, uint16(port.Port), rule)
		}
	}
	if port.NodePort == 0 {
		return
	}
	for a, node := range nodes {
		external := rule
		if s.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal {
			if node == "" {
				continue
			}
			external.Local = node
		}
		add(loopback.Map(a), uint16(port.NodePort), external)
	}
}

func hasNode(backends []Backend, node string) bool {
	for _, b := range backends {
		if b.Node == node {
			return true
		}
	}
	return false
}

func externalAddresses(s *v1.Service) []string {
	out := append([]string(nil), s.Spec.ExternalIPs...)
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		if ingress.IP != "" && (ingress.IPMode == nil || *ingress.IPMode == v1.LoadBalancerIPModeVIP) {
			out = append(out, ingress.IP)
		}
	}
	return out
}

func affinityOf(s *v1.Service) time.Duration {
	if s.Spec.SessionAffinity != v1.ServiceAffinityClientIP {
		return 0
	}
	seconds := int32(v1.DefaultClientIPServiceAffinitySeconds)
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(seconds) * time.Second
}

// usable are the ready endpoints of a port, or, when there is none, those that terminate and still serve (KEP-1669).
func usable(slices []*discovery.EndpointSlice, port *v1.ServicePort) []Backend {
	var ready, leaving []Backend
	seen := map[netip.AddrPort]bool{}
	for _, slice := range slices {
		number := slicePort(slice, port)
		if number == 0 {
			continue
		}
		for _, e := range slice.Endpoints {
			if len(e.Addresses) == 0 {
				continue
			}
			a, err := netip.ParseAddr(e.Addresses[0])
			if err != nil || !a.Is4() {
				continue
			}
			b := Backend{Address: netip.AddrPortFrom(a, number)}
			if loopback.IsPod(a) {
				b.Address = netip.AddrPortFrom(loopback.Map(a), loopback.Port(number))
			}
			if e.NodeName != nil {
				b.Node = *e.NodeName
			}
			isReady := e.Conditions.Ready == nil || *e.Conditions.Ready
			isServing := isReady
			if e.Conditions.Serving != nil {
				isServing = *e.Conditions.Serving
			}
			isLeaving := e.Conditions.Terminating != nil && *e.Conditions.Terminating
			switch {
			case seen[b.Address]:
			case isReady:
				ready, seen[b.Address] = append(ready, b), true
			case isServing && isLeaving:
				leaving = append(leaving, b)
			}
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return leaving
}

// slicePort is the number of the Service port's endpoints in a slice, or 0.
func slicePort(slice *discovery.EndpointSlice, port *v1.ServicePort) uint16 {
	for _, p := range slice.Ports {
		name, protocol := "", v1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if p.Port != nil && name == port.Name && protocol == port.Protocol {
			return uint16(*p.Port)
		}
	}
	return 0
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
