package node

import (
	"context"

	"google.golang.org/grpc"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtimeServer adapts a RuntimeService to the gRPC runtime service. Calls that it does not have (streaming lists,
// checkpoints) answer Unimplemented, and the kubelet falls back or reports it.
type runtimeServer struct {
	cri.UnimplementedRuntimeServiceServer
	runtime internalapi.RuntimeService
}

func (s *runtimeServer) Version(ctx context.Context, q *cri.VersionRequest) (*cri.VersionResponse, error) {
	r, err := s.runtime.Version(ctx, q.Version)
	return r, asStatus(err)
}

func (s *runtimeServer) Status(ctx context.Context, q *cri.StatusRequest) (*cri.StatusResponse, error) {
	r, err := s.runtime.Status(ctx, q.Verbose)
	return r, asStatus(err)
}

func (s *runtimeServer) RuntimeConfig(ctx context.Context, _ *cri.RuntimeConfigRequest) (*cri.RuntimeConfigResponse, error) {
	r, err := s.runtime.RuntimeConfig(ctx)
	return r, asStatus(err)
}

func (s *runtimeServer) UpdateRuntimeConfig(ctx context.Context, q *cri.UpdateRuntimeConfigRequest) (*cri.UpdateRuntimeConfigResponse, error) {
	return done[cri.UpdateRuntimeConfigResponse](s.runtime.UpdateRuntimeConfig(ctx, q.RuntimeConfig))
}

func (s *runtimeServer) RunPodSandbox(ctx context.Context, q *cri.RunPodSandboxRequest) (*cri.RunPodSandboxResponse, error) {
	id, err := s.runtime.RunPodSandbox(ctx, q.Config, q.RuntimeHandler)
	return &cri.RunPodSandboxResponse{PodSandboxId: id}, asStatus(err)
}

func (s *runtimeServer) StopPodSandbox(ctx context.Context, q *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	return done[cri.StopPodSandboxResponse](s.runtime.StopPodSandbox(ctx, q.PodSandboxId))
}

func (s *runtimeServer) RemovePodSandbox(ctx context.Context, q *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	return done[cri.RemovePodSandboxResponse](s.runtime.RemovePodSandbox(ctx, q.PodSandboxId))
}

func (s *runtimeServer) PodSandboxStatus(ctx context.Context, q *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	r, err := s.runtime.PodSandboxStatus(ctx, q.PodSandboxId, q.Verbose)
	return r, asStatus(err)
}

func (s *runtimeServer) ListPodSandbox(ctx context.Context, q *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	items, err := s.runtime.ListPodSandbox(ctx, q.Filter)
	return &cri.ListPodSandboxResponse{Items: items}, asStatus(err)
}

func (s *runtimeServer) UpdatePodSandboxResources(ctx context.Context, q *cri.UpdatePodSandboxResourcesRequest) (*cri.UpdatePodSandboxResourcesResponse, error) {
	r, err := s.runtime.UpdatePodSandboxResources(ctx, q)
	return r, asStatus(err)
}

func (s *runtimeServer) CreateContainer(ctx context.Context, q *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	id, err := s.runtime.CreateContainer(ctx, q.PodSandboxId, q.Config, q.SandboxConfig)
	return &cri.CreateContainerResponse{ContainerId: id}, asStatus(err)
}

func (s *runtimeServer) StartContainer(ctx context.Context, q *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	return done[cri.StartContainerResponse](s.runtime.StartContainer(ctx, q.ContainerId))
}

func (s *runtimeServer) StopContainer(ctx context.Context, q *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	return done[cri.StopContainerResponse](s.runtime.StopContainer(ctx, q.ContainerId, q.Timeout))
}

func (s *runtimeServer) RemoveContainer(ctx context.Context, q *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	return done[cri.RemoveContainerResponse](s.runtime.RemoveContainer(ctx, q.ContainerId))
}

func (s *runtimeServer) ListContainers(ctx context.Context, q *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	items, err := s.runtime.ListContainers(ctx, q.Filter)
	return &cri.ListContainersResponse{Containers: items}, asStatus(err)
}

func (s *runtimeServer) ContainerStatus(ctx context.Context, q *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	r, err := s.runtime.ContainerStatus(ctx, q.ContainerId, q.Verbose)
	return r, asStatus(err)
}

func (s *runtimeServer) UpdateContainerResources(ctx context.Context, q *cri.UpdateContainerResourcesRequest) (*cri.UpdateContainerResourcesResponse, error) {
	resources := &cri.ContainerResources{Linux: q.Linux, Windows: q.Windows}
	return done[cri.UpdateContainerResourcesResponse](s.runtime.UpdateContainerResources(ctx, q.ContainerId, resources))
}

func (s *runtimeServer) ReopenContainerLog(ctx context.Context, q *cri.ReopenContainerLogRequest) (*cri.ReopenContainerLogResponse, error) {
	return done[cri.ReopenContainerLogResponse](s.runtime.ReopenContainerLog(ctx, q.ContainerId))
}

func (s *runtimeServer) ExecSync(ctx context.Context, q *cri.ExecSyncRequest) (*cri.ExecSyncResponse, error) {
	return execResponse(s.runtime.ExecSync(ctx, q.ContainerId, q.Cmd, execTimeout(q)))
}

func (s *runtimeServer) Exec(ctx context.Context, q *cri.ExecRequest) (*cri.ExecResponse, error) {
	r, err := s.runtime.Exec(ctx, q)
	return r, asStatus(err)
}

func (s *runtimeServer) Attach(ctx context.Context, q *cri.AttachRequest) (*cri.AttachResponse, error) {
	r, err := s.runtime.Attach(ctx, q)
	return r, asStatus(err)
}

func (s *runtimeServer) PortForward(ctx context.Context, q *cri.PortForwardRequest) (*cri.PortForwardResponse, error) {
	r, err := s.runtime.PortForward(ctx, q)
	return r, asStatus(err)
}

func (s *runtimeServer) ContainerStats(ctx context.Context, q *cri.ContainerStatsRequest) (*cri.ContainerStatsResponse, error) {
	stats, err := s.runtime.ContainerStats(ctx, q.ContainerId)
	return &cri.ContainerStatsResponse{Stats: stats}, asStatus(err)
}

func (s *runtimeServer) ListContainerStats(ctx context.Context, q *cri.ListContainerStatsRequest) (*cri.ListContainerStatsResponse, error) {
	stats, err := s.runtime.ListContainerStats(ctx, q.Filter)
	return &cri.ListContainerStatsResponse{Stats: stats}, asStatus(err)
}

func (s *runtimeServer) PodSandboxStats(ctx context.Context, q *cri.PodSandboxStatsRequest) (*cri.PodSandboxStatsResponse, error) {
	stats, err := s.runtime.PodSandboxStats(ctx, q.PodSandboxId)
	return &cri.PodSandboxStatsResponse{Stats: stats}, asStatus(err)
}

func (s *runtimeServer) ListPodSandboxStats(ctx context.Context, q *cri.ListPodSandboxStatsRequest) (*cri.ListPodSandboxStatsResponse, error) {
	stats, err := s.runtime.ListPodSandboxStats(ctx, q.Filter)
	return &cri.ListPodSandboxStatsResponse{Stats: stats}, asStatus(err)
}

func (s *runtimeServer) ListMetricDescriptors(ctx context.Context, _ *cri.ListMetricDescriptorsRequest) (*cri.ListMetricDescriptorsResponse, error) {
	items, err := s.runtime.ListMetricDescriptors(ctx)
	return &cri.ListMetricDescriptorsResponse{Descriptors: items}, asStatus(err)
}

func (s *runtimeServer) ListPodSandboxMetrics(ctx context.Context, _ *cri.ListPodSandboxMetricsRequest) (*cri.ListPodSandboxMetricsResponse, error) {
	items, err := s.runtime.ListPodSandboxMetrics(ctx)
	return &cri.ListPodSandboxMetricsResponse{PodMetrics: items}, asStatus(err)
}

// GetContainerEvents relays the runtime's events (the kubelet asks for them only with the feature gate EventedPLEG).
func (s *runtimeServer) GetContainerEvents(_ *cri.GetEventsRequest, stream grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	events := make(chan *cri.ContainerEventResponse, 64)
	failed := make(chan error, 1)
	go func() { failed <- s.runtime.GetContainerEvents(ctx, events, nil) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return asStatus(err)
		case event := <-events:
			if err := stream.Send(event); err != nil {
				return err
			}
		}
	}
}
