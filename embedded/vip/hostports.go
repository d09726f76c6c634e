package vip

import (
	"fmt"
	"net/netip"
	"strings"

	v1 "k8s.io/api/core/v1"

	"labkit.dev/embedded/loopback"
)

// trimmed is what of a pod concerns its host ports.
func trimmed(pod *v1.Pod) *v1.Pod {
	out := &v1.Pod{ObjectMeta: pod.ObjectMeta}
	out.Spec.NodeName, out.Spec.HostNetwork = pod.Spec.NodeName, pod.Spec.HostNetwork
	out.Annotations, out.Labels, out.OwnerReferences = nil, nil, nil
	out.Status.Phase, out.Status.PodIP, out.Status.HostIP = pod.Status.Phase, pod.Status.PodIP, pod.Status.HostIP
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.HostPort != 0 {
				out.Spec.Containers = append(out.Spec.Containers, v1.Container{Ports: []v1.ContainerPort{port}})
			}
		}
	}
	return out
}

// hasHostPorts tells whether a pod has ports that are to be served at its node's address.
func hasHostPorts(pod *v1.Pod) bool {
	return !pod.Spec.HostNetwork && len(trimmed(pod).Spec.Containers) > 0
}

// addHostPorts adds what the portmap plugin does on other clusters: a pod's host ports at its node's address, or at the host
// address that it names.
func addHostPorts(rules map[Listen]Rule, pod *v1.Pod) {
	address, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil || !loopback.IsPod(address) || !hasHostPorts(pod) || pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
		return
	}
	for _, container := range trimmed(pod).Spec.Containers {
		port := container.Ports[0]
		at, err := netip.ParseAddr(port.HostIP)
		if err != nil || at.IsUnspecified() {
			if at, err = netip.ParseAddr(pod.Status.HostIP); err != nil {
				continue
			}
		}
		if !loopback.IsPod(at) && !at.IsLoopback() { // an address of the machine's own is nothing to serve a pod at
			continue
		}
		network := strings.ToLower(string(port.Protocol))
		if network != "tcp" && network != "udp" {
			continue
		}
		backend := Backend{Address: netip.AddrPortFrom(loopback.Map(address), loopback.Port(uint16(port.ContainerPort)))}
		listen := Listen{network, netip.AddrPortFrom(loopback.Map(at), loopback.Port(uint16(port.HostPort)))}
		if _, taken := rules[listen]; !taken {
			rules[listen] = Rule{Port: fmt.Sprintf("%s/%s:%d", pod.Namespace, pod.Name, port.HostPort), Backends: []Backend{backend}}
		}
	}
}
