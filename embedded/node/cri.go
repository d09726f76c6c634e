package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
	utilexec "k8s.io/utils/exec"
)

// criMessageLimit is the largest CRI message in bytes: what the kubelet's own client accepts.
const criMessageLimit = 16 << 20

// ServeCRI serves runtime and images as the CRI v1 gRPC API on the unix socket path, mode 0600, until ctx ends.
// The kubelet connects to a socket and takes no runtime in process (PreInitRuntimeService in pkg/kubelet); as a gain,
// crictl and critest work on the socket too. It returns the endpoint for containerRuntimeEndpoint: a short path
// through /proc, because a socket's path may not exceed 107 bytes and a state directory's may.
func ServeCRI(ctx context.Context, path string, runtime internalapi.RuntimeService, images internalapi.ImageManagerService) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	// The descriptor is kept on purpose: the endpoint leads through it for as long as this process lives.
	dir, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if err := os.Remove(short); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("remove the stale CRI socket: %w", err)
	}
	listener, err := net.Listen("unix", short)
	if err != nil {
		return "", fmt.Errorf("CRI socket %s: %w", path, err)
	}
	if err := os.Chmod(short, 0o600); err != nil {
		return "", err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(criMessageLimit), grpc.MaxSendMsgSize(criMessageLimit))
	cri.RegisterRuntimeServiceServer(server, &runtimeServer{runtime: runtime})
	cri.RegisterImageServiceServer(server, &imageServer{images: images})
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() {
		server.Stop()
		dir.Close()
	})
	return "unix://" + short, nil
}

// asStatus gives err the gRPC code that CRI clients look at; errors that carry one keep it.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, criclient.ErrCommandTimedOut) || errors.Is(err, context.DeadlineExceeded) {
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}

// done is the answer of a call whose response is empty.
func done[R any](err error) (*R, error) {
	if err != nil {
		return nil, asStatus(err)
	}
	return new(R), nil
}

// imageServer adapts an ImageManagerService to the gRPC image service.
type imageServer struct {
	cri.UnimplementedImageServiceServer
	images internalapi.ImageManagerService
}

func (s *imageServer) ListImages(ctx context.Context, q *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	images, err := s.images.ListImages(ctx, q.Filter)
	return &cri.ListImagesResponse{Images: images}, asStatus(err)
}

func (s *imageServer) ImageStatus(ctx context.Context, q *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	r, err := s.images.ImageStatus(ctx, q.Image, q.Verbose)
	return r, asStatus(err)
}

func (s *imageServer) PullImage(ctx context.Context, q *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	ref, err := s.images.PullImage(ctx, q.Image, q.Auth, q.SandboxConfig)
	return &cri.PullImageResponse{ImageRef: ref}, asStatus(err)
}

func (s *imageServer) RemoveImage(ctx context.Context, q *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	return done[cri.RemoveImageResponse](s.images.RemoveImage(ctx, q.Image))
}

func (s *imageServer) ImageFsInfo(ctx context.Context, _ *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	r, err := s.images.ImageFsInfo(ctx)
	return r, asStatus(err)
}

// execResponse turns what ExecSync of the in-process interface returns into the wire form: a non-zero exit code is an
// answer there, not an error.
func execResponse(stdout, stderr []byte, err error) (*cri.ExecSyncResponse, error) {
	r := &cri.ExecSyncResponse{Stdout: stdout, Stderr: stderr}
	var exit utilexec.CodeExitError
	if errors.As(err, &exit) {
		r.ExitCode = int32(exit.Code)
		return r, nil
	}
	return r, asStatus(err)
}

// execTimeout converts a request's timeout in seconds; 0 means none.
func execTimeout(q *cri.ExecSyncRequest) time.Duration { return time.Duration(q.Timeout) * time.Second }
