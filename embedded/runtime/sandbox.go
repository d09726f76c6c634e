package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/loopback"
	"labkit.dev/embedded/services"
	"labkit.dev/embedded/shim"
	"labkit.dev/embedded/sockets"
	"labkit.dev/embedded/supervise"
)

// RunPodSandbox gives a pod its address and starts its shim.
func (r *Runtime) RunPodSandbox(_ context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	if handler != "" {
		return "", status.Errorf(codes.InvalidArgument, "no runtime for %q is configured", handler)
	}
	if config.GetMetadata() == nil {
		return "", status.Error(codes.InvalidArgument, "the sandbox has no metadata")
	}
	id := newID()
	dir := filepath.Join(r.NodeDir, "pods", id)
	s := &sandbox{id: id, dir: dir, config: config, shim: shim.Client{Dir: dir}, stopped: make(chan struct{})}
	s.Created, s.Ready = now(), true
	s.HostNetwork = config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == cri.NamespaceMode_NODE
	s.Hostname = firstOf(config.GetHostname(), r.NodeName)
	if s.HostNetwork {
		s.Address = r.NodeAddress
	} else {
		address, err := r.addresses.take()
		if err != nil {
			return "", status.Error(codes.ResourceExhausted, err.Error())
		}
		s.Address = address
	}
	if err := r.startShim(s); err != nil {
		r.discard(s)
		return "", fmt.Errorf("start the pod's shim: %w", err)
	}
	r.mu.Lock()
	r.sandboxes[id] = s
	r.mu.Unlock()
	r.follow(s)
	return id, nil
}

// startShim writes the pod's files and starts its shim. When it returns, the shim listens.
func (r *Runtime) startShim(s *sandbox) error {
	if err := os.MkdirAll(filepath.Join(s.dir, "containers"), 0o700); err != nil {
		return err
	}
	if err := s.save(); err != nil {
		return err
	}
	has := r.isolation()
	pod := shim.Pod{
		ID: s.id, Hostname: s.Hostname, Policy: s.policy(), Links: !has.mounts, Pids: has.pids, Users: has.users,
		Processes: r.PodProcesses,
	}
	if r.Supervisor != "" {
		pod.Policy.Services = filepath.Join(r.Supervisor, services.FileName)
	}
	text, err := json.Marshal(pod)
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"pod.json": string(text), "hostname": s.Hostname + "\n", "resolv.conf": resolvConf(s.config.GetDnsConfig())} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if directory := logDirectory(s.config); directory != "" {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return err
		}
	}
	command := []string{r.ShimPath, "pod", "--dir", s.dir}
	if r.Supervisor != "" {
		err = supervise.RunOnce(r.Supervisor, command)
	} else if output, failed := exec.Command(command[0], command[1:]...).CombinedOutput(); failed != nil {
		err = fmt.Errorf("%w: %s", failed, strings.TrimSpace(string(output)))
	}
	if err != nil {
		return err
	}
	state, err := s.shim.ReadState()
	s.mounts = state.Mounts
	return err
}

// logDirectory is where a pod's logs are, by a path that its shim understands too.
func logDirectory(config *cri.PodSandboxConfig) string {
	rest, ours := strings.CutPrefix(config.GetLogDirectory(), "/proc/self/cwd/")
	if here, err := os.Getwd(); ours && err == nil {
		return filepath.Join(here, rest)
	}
	return config.GetLogDirectory()
}

// policy is how the pod's processes see the network. Only a pod that is to use cluster DNS has its name lookups redirected.
func (s *sandbox) policy() sockets.Policy {
	policy := sockets.Policy{Kind: sockets.Pod, Address: loopback.Map(s.Address)}
	if s.HostNetwork {
		policy.Kind = sockets.Host
	}
	for _, server := range s.config.GetDnsConfig().GetServers() {
		if address, err := netip.ParseAddr(server); err == nil && loopback.IsCluster(address) {
			policy.DNS = netip.AddrPortFrom(address, 53)
			if s.HostNetwork {
				policy.Kind = sockets.Client
			}
			break
		}
	}
	return policy
}

func resolvConf(dns *cri.DNSConfig) string {
	if dns == nil {
		return ""
	}
	var out strings.Builder
	for _, server := range dns.Servers {
		fmt.Fprintf(&out, "nameserver %s\n", server)
	}
	if len(dns.Searches) > 0 {
		fmt.Fprintf(&out, "search %s\n", strings.Join(dns.Searches, " "))
	}
	if len(dns.Options) > 0 {
		fmt.Fprintf(&out, "options %s\n", strings.Join(dns.Options, " "))
	}
	return out.String()
}

// discard removes a pod that did not come into being.
func (r *Runtime) discard(s *sandbox) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = s.shim.Shutdown(ctx)
	if !s.HostNetwork {
		r.addresses.free(s.Address)
	}
	_ = removeAll(s.dir)
}

// firstLimit bounds the wait for the first word of a shim. A shim that hangs must not keep the node's other pods waiting.
const firstLimit = 5 * time.Second

// follow keeps the containers' statuses up to date, until the pod is stopped or its shim is gone. They are known when it returns,
// unless the shim is slow.
func (r *Runtime) follow(s *sandbox) {
	first := make(chan struct{})
	go func() {
		defer close(s.stopped)
		known := false
		err := s.shim.Watch(r.open, func(statuses []shim.Status) {
			r.update(s, statuses)
			if !known {
				known = true
				close(first)
			}
		})
		if err != nil {
			r.lost(s)
		}
		if !known {
			close(first)
		}
	}()
	select {
	case <-first:
	case <-time.After(firstLimit):
		r.Log.Warn("a pod's shim does not answer yet; its containers count as they were last known", "sandbox", s.id)
	}
}

// lost cleans up when a shim has gone. If the pod was stopped, there is nothing left to clean.
func (r *Runtime) lost(s *sandbox) {
	statuses, err := shim.Sweep(s.dir)
	if err != nil && !os.IsNotExist(err) {
		r.Log.Error("a pod whose shim is gone cannot be cleaned up", "sandbox", s.id, "error", err)
	}
	r.update(s, statuses)
	r.setNotReady(s)
}

func (r *Runtime) setNotReady(s *sandbox) {
	r.mu.Lock()
	was := s.Ready
	s.Ready = false
	if was {
		if err := s.save(); err != nil && !os.IsNotExist(err) {
			r.Log.Error("a pod's record cannot be written", "sandbox", s.id, "error", err)
		}
	}
	r.mu.Unlock()
	if was && !s.HostNetwork {
		r.addresses.free(s.Address)
	}
}

// update takes over what the shim tells of its containers.
func (r *Runtime) update(s *sandbox, statuses []shim.Status) {
	for _, told := range statuses {
		r.mu.Lock()
		c := r.containers[told.ID]
		changed := c != nil && c.status.FinishedAt == 0 && c.status != told
		started := changed && c.status.StartedAt == 0 && told.StartedAt != 0
		if changed {
			c.status = told
		}
		r.mu.Unlock()
		if started { // also one that has ended before this was heard
			r.emit(cri.ContainerEventType_CONTAINER_STARTED_EVENT, s, told.ID)
		}
		if changed && !told.Running {
			r.emit(cri.ContainerEventType_CONTAINER_STOPPED_EVENT, s, told.ID)
		}
	}
}

// StopPodSandbox kills what still runs in a pod, its shim too, and takes its address back.
func (r *Runtime) StopPodSandbox(ctx context.Context, id string) error {
	s, err := r.sandbox(id)
	if err != nil {
		return nil //nolint:nilerr // it is stopped as it is not there
	}
	s.ending.Lock()
	defer s.ending.Unlock()
	select {
	case <-s.stopped:
		r.setNotReady(s)
		return nil
	default:
	}
	if err := s.shim.Shutdown(ctx); err != nil {
		r.Log.Info("a pod is stopped without its shim", "sandbox", id, "error", err)
	}
	select {
	case <-s.stopped: // lost has cleaned up
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RemovePodSandbox stops a pod and removes its files.
func (r *Runtime) RemovePodSandbox(ctx context.Context, id string) error {
	s, err := r.sandbox(id)
	if err != nil {
		return nil //nolint:nilerr // it is removed as it is not there
	}
	if err := r.StopPodSandbox(ctx, id); err != nil {
		return err
	}
	r.mu.Lock()
	for cid, c := range r.containers {
		if c.sandbox == s {
			delete(r.containers, cid)
		}
	}
	delete(r.sandboxes, id)
	r.mu.Unlock()
	return removeAll(s.dir)
}

func (r *Runtime) sandbox(id string) (*sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sandboxes[id]; s != nil {
		return s, nil
	}
	return nil, status.Errorf(codes.NotFound, "sandbox %q is not found", id)
}

// PodSandboxStatus describes a pod.
func (r *Runtime) PodSandboxStatus(_ context.Context, id string, _ bool) (*cri.PodSandboxStatusResponse, error) {
	s, err := r.sandbox(id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return &cri.PodSandboxStatusResponse{Status: s.describe(), Timestamp: now()}, nil
}

func (s *sandbox) state() cri.PodSandboxState {
	if s.Ready {
		return cri.PodSandboxState_SANDBOX_READY
	}
	return cri.PodSandboxState_SANDBOX_NOTREADY
}

func (s *sandbox) describe() *cri.PodSandboxStatus {
	address := ""
	if !s.HostNetwork { // as CRI has it: the kubelet knows the node's
		address = s.Address.String()
	}
	return &cri.PodSandboxStatus{
		Id: s.id, Metadata: s.config.Metadata, State: s.state(), CreatedAt: s.Created,
		Network: &cri.PodSandboxNetworkStatus{Ip: address},
		Linux:   &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: s.config.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
		Labels:  s.config.Labels, Annotations: s.config.Annotations, RuntimeHandler: s.Handler,
	}
}

// ListPodSandbox lists the pods that match a filter.
func (r *Runtime) ListPodSandbox(_ context.Context, f *cri.PodSandboxFilter) ([]*cri.PodSandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*cri.PodSandbox
	for _, s := range r.sandboxes {
		if f.GetId() != "" && f.Id != s.id || f.GetState() != nil && f.State.State != s.state() || !matches(f.GetLabelSelector(), s.config.Labels) {
			continue
		}
		out = append(out, &cri.PodSandbox{
			Id: s.id, Metadata: s.config.Metadata, State: s.state(), CreatedAt: s.Created,
			Labels: s.config.Labels, Annotations: s.config.Annotations, RuntimeHandler: s.Handler,
		})
	}
	return out, nil
}

func matches(wanted, have map[string]string) bool {
	for key, value := range wanted {
		if got, ok := have[key]; !ok || got != value {
			return false
		}
	}
	return true
}
