package vip

import (
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"labkit.dev/embedded/loopback"
)

func service(change func(*v1.Service)) *v1.Service {
	s := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "catalog", Labels: map[string]string{}},
		Spec: v1.ServiceSpec{ClusterIP: "127.96.1.2", Type: v1.ServiceTypeClusterIP, Ports: []v1.ServicePort{
			{Name: "http", Port: 80, Protocol: v1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)}}},
	}
	if change != nil {
		change(s)
	}
	return s
}

type endpoint struct {
	address, node               string
	ready, serving, terminating *bool
}

func slice(port int32, endpoints ...endpoint) *discovery.EndpointSlice {
	s := &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "catalog-x", Labels: map[string]string{discovery.LabelServiceName: "catalog"}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(port), Protocol: ptr.To(v1.ProtocolTCP)}},
	}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, discovery.Endpoint{Addresses: []string{e.address}, NodeName: ptr.To(e.node),
			Conditions: discovery.EndpointConditions{Ready: e.ready, Serving: e.serving, Terminating: e.terminating}})
	}
	return s
}

func node(name, address string) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: address}}}}
}

func rulesOf(t *testing.T, s *v1.Service, slices ...*discovery.EndpointSlice) map[Listen]Rule {
	t.Helper()
	plan, err := PlanOf(0)
	if err != nil {
		t.Fatal(err)
	}
	c := NewCluster(plan)
	c.Services, c.Slices = []*v1.Service{s}, slices
	c.Nodes = []*v1.Node{node("worker-1", "198.18.1.1"), node("worker-2", "198.18.2.1")}
	return c.Rules()
}

func at(address string) Listen { return Listen{"tcp", netip.MustParseAddrPort(address)} }

func wantBackends(t *testing.T, rules map[Listen]Rule, address string, want ...string) {
	t.Helper()
	rule, ok := rules[at(address)]
	if !ok {
		t.Fatalf("nothing is served at %s: %v", address, rules)
	}
	got := map[string]bool{}
	for _, b := range rule.Backends {
		got[b.Address.String()] = true
	}
	if len(got) != len(want) {
		t.Errorf("%s goes to %v, want %v", address, rule.Backends, want)
	}
	for _, w := range want {
		if !got[w] {
			t.Errorf("%s goes to %v, not to %s", address, rule.Backends, w)
		}
	}
}

func TestClusterIPIsServedAtBothPorts(t *testing.T) {
	rules := rulesOf(t, service(nil), slice(8080, endpoint{address: "198.18.1.7", node: "worker-1"}, endpoint{address: "198.19.3.4", node: "worker-2"}))
	if len(rules) != 3 {
		t.Fatalf("%d rules, want the port, the shifted port and its own place: %v", len(rules), rules)
	}
	wantBackends(t, rules, "127.104.1.2:10080", "127.18.1.7:8080", "127.19.3.4:8080")
	wantBackends(t, rules, "127.96.1.2:80", "127.18.1.7:8080", "127.19.3.4:8080")
	wantBackends(t, rules, "127.96.1.2:10080", "127.18.1.7:8080", "127.19.3.4:8080")
}

func TestAPortAndItsShiftedNumberAreTwoPorts(t *testing.T) {
	s := service(func(s *v1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Name: "other", Port: 10080, Protocol: v1.ProtocolTCP})
	})
	other := slice(9090, endpoint{address: "198.18.1.7"})
	other.Name, other.Ports[0].Name = "catalog-y", ptr.To("other")
	for range 20 { // whatever the order
		rules := rulesOf(t, s, slice(8080, endpoint{address: "198.18.1.7"}), other)
		wantBackends(t, rules, "127.96.1.2:10080", "127.18.1.7:8080") // where port 80 is looked for
		wantBackends(t, rules, "127.104.1.2:10080", "127.18.1.7:9090")
		wantBackends(t, rules, "127.96.1.2:80", "127.18.1.7:8080")
	}
	s.Spec.Ports = s.Spec.Ports[1:]
	wantBackends(t, rulesOf(t, s, other), "127.96.1.2:10080", "127.18.1.7:9090") // for programs that do not translate
}

func TestLowTargetPortIsShifted(t *testing.T) {
	wantBackends(t, rulesOf(t, service(nil), slice(80, endpoint{address: "198.18.1.7"})), "127.96.1.2:10080", "127.18.1.7:10080")
}

func TestAddressesOutsideThePodRangeAreDialledAsTheyAre(t *testing.T) {
	wantBackends(t, rulesOf(t, service(nil), slice(80, endpoint{address: "127.0.0.1"})), "127.96.1.2:10080", "127.0.0.1:80")
}

func TestServicesThatAreNotOurs(t *testing.T) {
	ready := slice(8080, endpoint{address: "198.18.1.7"})
	for name, change := range map[string]func(*v1.Service){
		"headless":     func(s *v1.Service) { s.Spec.ClusterIP = v1.ClusterIPNone },
		"other proxy":  func(s *v1.Service) { s.Labels["service.kubernetes.io/service-proxy-name"] = "coredns" },
		"ExternalName": func(s *v1.Service) { s.Spec.Type, s.Spec.ClusterIP = v1.ServiceTypeExternalName, "" },
		"other range":  func(s *v1.Service) { s.Spec.ClusterIP = "127.97.1.2" },
		"foreign LB": func(s *v1.Service) {
			s.Spec.ClusterIP = "127.97.1.2"
			s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "10.0.0.1"}, {IP: "127.240.1.1"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			if rules := rulesOf(t, service(change), ready); len(rules) != 0 {
				t.Errorf("served: %v", rules)
			}
		})
	}
}

func TestNoUsableEndpointIsNotServed(t *testing.T) {
	no, yes := ptr.To(false), ptr.To(true)
	starting := endpoint{address: "198.18.1.7", ready: no, serving: no, terminating: no}
	if rules := rulesOf(t, service(nil), slice(8080, starting)); len(rules) != 0 {
		t.Errorf("a starting endpoint is used: %v", rules)
	}
	leaving := endpoint{address: "198.18.1.8", ready: no, serving: yes, terminating: yes}
	wantBackends(t, rulesOf(t, service(nil), slice(8080, starting, leaving)), "127.96.1.2:10080", "127.18.1.8:8080")
	ready := endpoint{address: "198.18.1.9", ready: yes, serving: yes, terminating: no}
	wantBackends(t, rulesOf(t, service(nil), slice(8080, starting, leaving, ready)), "127.96.1.2:10080", "127.18.1.9:8080")
}

func TestNodePortAndLoadBalancer(t *testing.T) {
	balanced := func(local bool) *v1.Service {
		return service(func(s *v1.Service) {
			s.Spec.Type, s.Spec.Ports[0].NodePort = v1.ServiceTypeLoadBalancer, 30080
			s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "127.240.0.1"}}
			if local {
				s.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
			}
		})
	}
	endpoints := slice(8080, endpoint{address: "198.18.1.7", node: "worker-1"})
	rules := rulesOf(t, balanced(false), endpoints)
	for _, address := range []string{"127.18.0.1:30080", "127.18.1.1:30080", "127.18.2.1:30080", "127.240.0.1:80", "127.240.0.1:10080"} {
		wantBackends(t, rules, address, "127.18.1.7:8080")
	}
	rules = rulesOf(t, balanced(true), endpoints)
	wantBackends(t, rules, "127.18.1.1:30080", "127.18.1.7:8080")
	wantBackends(t, rules, "127.240.0.1:10080", "127.18.1.7:8080")
	for _, address := range []string{"127.18.0.1:30080", "127.18.2.1:30080"} {
		if _, ok := rules[at(address)]; ok {
			t.Errorf("%s is served although its node has no endpoint and externalTrafficPolicy is Local", address)
		}
	}
}

func TestPolicies(t *testing.T) {
	local := v1.ServiceInternalTrafficPolicyLocal
	rules := rulesOf(t, service(func(s *v1.Service) {
		s.Spec.InternalTrafficPolicy, s.Spec.SessionAffinity = &local, v1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &v1.SessionAffinityConfig{ClientIP: &v1.ClientIPConfig{TimeoutSeconds: ptr.To[int32](7)}}
	}), slice(8080, endpoint{address: "198.18.1.7", node: "worker-1"}))
	rule := rules[at("127.96.1.2:10080")]
	if len(rule.OnNode["worker-1"]) != 1 || len(rule.OnNode["worker-2"])+len(rule.Backends) != 0 || rule.Affinity.Seconds() != 7 {
		t.Errorf("internalTrafficPolicy Local and an affinity of 7 s became %+v", rule)
	}
}

func TestPlanOf(t *testing.T) {
	if p, err := PlanOf(4); err != nil || pods(p).String() != "198.19.0.0/18" || controlPlane(p).String() != "198.19.0.1" {
		t.Errorf("slot 4: %v %v %v", pods(p), controlPlane(p), err)
	}
	for _, slot := range []int{-1, 8} {
		if _, err := PlanOf(slot); err == nil {
			t.Errorf("slot %d exists", slot)
		}
	}
}

// states of an endpoint
var (
	draining = endpoint{ready: ptr.To(false), serving: ptr.To(true), terminating: ptr.To(true)}
	starting = endpoint{ready: ptr.To(false), serving: ptr.To(false), terminating: ptr.To(false)}
)

func (e endpoint) at(address, node string) endpoint {
	e.address, e.node = address, node
	return e
}

func TestLocalPolicyKeepsANodeThatDrains(t *testing.T) {
	s := service(func(s *v1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, 30080
		s.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
	})
	endpoints := slice(8080, draining.at("198.18.1.7", "worker-1"), starting.at("198.18.1.8", "worker-1"), endpoint{address: "198.18.2.7", node: "worker-2"})
	rules := rulesOf(t, s, endpoints)
	wantBackends(t, rules, "127.18.1.1:30080", "127.18.1.7:8080")
	wantBackends(t, rules, "127.18.2.1:30080", "127.18.2.7:8080")
	wantBackends(t, rules, "127.96.1.2:10080", "127.18.2.7:8080")

	internal := v1.ServiceInternalTrafficPolicyLocal
	rules = rulesOf(t, service(func(s *v1.Service) { s.Spec.InternalTrafficPolicy = &internal }), endpoints)
	rule := rules[at("127.96.1.2:10080")]
	for node, want := range map[string]string{"worker-1": "127.18.1.7:8080", "worker-2": "127.18.2.7:8080"} {
		if got := rule.OnNode[node]; len(got) != 1 || got[0].Address.String() != want {
			t.Errorf("internalTrafficPolicy Local: clients on %s get %v, want %s", node, got, want)
		}
	}
}

func TestTrafficStaysNear(t *testing.T) {
	endpoints := slice(8080, endpoint{address: "198.18.1.7", node: "worker-1"}, endpoint{address: "198.18.2.7", node: "worker-2"})
	for i, node := range []string{"worker-1", "worker-2"} {
		endpoints.Endpoints[i].Hints = &discovery.EndpointHints{ForNodes: []discovery.ForNode{{Name: node}}}
	}
	s := service(func(s *v1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, 30080 })
	rules := rulesOf(t, s, endpoints)
	rule := rules[at("127.96.1.2:10080")]
	if got := rule.OnNode["worker-2"]; len(got) != 1 || got[0].Address.String() != "127.18.2.7:8080" {
		t.Errorf("PreferSameNode: clients on worker-2 get %v", got)
	}
	wantBackends(t, rules, "127.96.1.2:10080", "127.18.1.7:8080", "127.18.2.7:8080") // clients on no node
	wantBackends(t, rules, "127.18.1.1:30080", "127.18.1.7:8080")

	for i, zone := range []string{"here", "there"} {
		endpoints.Endpoints[i].Hints = &discovery.EndpointHints{ForZones: []discovery.ForZone{{Name: zone}}}
	}
	cluster := NewCluster(loopback.Plan{})
	cluster.Services, cluster.Slices = []*v1.Service{s}, []*discovery.EndpointSlice{endpoints}
	cluster.Nodes = []*v1.Node{node("worker-1", "198.18.1.1"), node("worker-2", "198.18.2.1")}
	cluster.Nodes[0].Labels = map[string]string{v1.LabelTopologyZone: "here"}
	rule = cluster.Rules()[at("127.96.1.2:10080")]
	if got := rule.OnNode["worker-1"]; len(got) != 1 || got[0].Address.String() != "127.18.1.7:8080" {
		t.Errorf("PreferSameZone: clients in the zone here get %v", got)
	}
	if got := rule.OnNode["worker-2"]; len(got) != 2 {
		t.Errorf("PreferSameZone: clients on a node without a zone get %v", got)
	}
}

func TestRulesFollowChanges(t *testing.T) {
	cluster := NewCluster(loopback.Plan{})
	cluster.Nodes = []*v1.Node{node("worker-1", "198.18.1.1")}
	cluster.Services = []*v1.Service{service(nil)}
	cluster.Slices = []*discovery.EndpointSlice{slice(8080, endpoint{address: "198.18.1.7", node: "worker-1"})}
	wantBackends(t, cluster.Rules(), "127.96.1.2:10080", "127.18.1.7:8080")
	cluster.Slices = []*discovery.EndpointSlice{slice(8080, endpoint{address: "198.18.1.8", node: "worker-1"})}
	wantBackends(t, cluster.Rules(), "127.96.1.2:10080", "127.18.1.8:8080")
	cluster.Services = []*v1.Service{service(func(s *v1.Service) { s.Spec.ClusterIP = "127.96.1.3" })}
	wantBackends(t, cluster.Rules(), "127.96.1.3:10080", "127.18.1.8:8080")
	cluster.Nodes, cluster.Slices = nil, nil
	if rules := cluster.Rules(); len(rules) != 0 {
		t.Errorf("after the endpoints have gone: %v", rules)
	}
	cluster.Slices = []*discovery.EndpointSlice{slice(8080, endpoint{address: "198.18.1.9", node: "worker-1"})}
	wantBackends(t, cluster.Rules(), "127.96.1.3:10080", "127.18.1.9:8080")
	cluster.Services = nil
	if rules := cluster.Rules(); len(rules) != 0 {
		t.Errorf("after the Service has gone: %v", rules)
	}
}
