package vip

import (
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"labkit.dev/embedded/loopback"
)

func TestHostPorts(t *testing.T) {
	pod := func(change func(*v1.Pod)) *v1.Pod {
		p := &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "edge"},
			Spec: v1.PodSpec{NodeName: "worker-1", Containers: []v1.Container{{}, {Image: "x", Ports: []v1.ContainerPort{
				{ContainerPort: 80, HostPort: 8080, Protocol: v1.ProtocolTCP}, {ContainerPort: 9000, Protocol: v1.ProtocolTCP},
				{ContainerPort: 53, HostPort: 53, Protocol: v1.ProtocolUDP, HostIP: "127.0.0.1"},
				{ContainerPort: 80, HostPort: 8081, Protocol: v1.ProtocolTCP, HostIP: "192.0.2.1"},
			}}}},
			Status: v1.PodStatus{Phase: v1.PodRunning, PodIP: "198.18.1.7", HostIP: "198.18.1.1"},
		}
		change(p)
		return p
	}
	rules := func(p *v1.Pod) map[Listen]Rule {
		cluster := NewCluster(loopback.Plan{})
		cluster.Pods = []*v1.Pod{trimmed(p)}
		return cluster.Rules()
	}
	got := rules(pod(func(*v1.Pod) {}))
	tcp, udp := got[at("127.18.1.1:8080")], got[Listen{"udp", netip.MustParseAddrPort("127.0.0.1:10053")}]
	if len(got) != 2 || len(tcp.Backends) != 1 || len(udp.Backends) != 1 {
		t.Fatalf("%v", got)
	}
	if tcp.Backends[0].Address.String() != "127.18.1.7:10080" || udp.Backends[0].Address.String() != "127.18.1.7:10053" {
		t.Errorf("they lead to %v and %v", tcp.Backends, udp.Backends)
	}
	for name, change := range map[string]func(*v1.Pod){
		"on the host's network": func(p *v1.Pod) { p.Spec.HostNetwork = true },
		"not started":           func(p *v1.Pod) { p.Status.PodIP = "" },
		"ended":                 func(p *v1.Pod) { p.Status.Phase = v1.PodSucceeded },
	} {
		if got := rules(pod(change)); len(got) != 0 {
			t.Errorf("a pod that is %s: %v", name, got)
		}
	}
}
