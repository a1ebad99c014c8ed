// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/upsplice/upsplice/plugins/backend/backendpb"
)

// server answers gRPC calls with a Backend.
type server struct {
	pb.UnimplementedBackendServer
	impl Backend
}

var _ pb.BackendServer = (*server)(nil)

// guard keeps a panic of one call from taking the process and the other calls with it.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = toStatus(&Error{Kind: Internal, What: "backend", Detail: fmt.Sprintf("panic: %v", p)})
	}
}

func (s *server) Describe(ctx context.Context, _ *pb.DescribeRequest) (res *pb.Description, err error) {
	defer guard(&err)
	d, err := s.impl.Describe(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.Description{Name: d.Name, Version: d.Version, Systems: d.Systems}, nil
}

func (s *server) Kernels(ctx context.Context, req *pb.KernelsRequest) (res *pb.KernelsResponse, err error) {
	defer guard(&err)
	ks, err := s.impl.Kernels(ctx, each(req.GetPackages(), packageFromPB))
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.KernelsResponse{Kernels: each(ks, kernelToPB)}, nil
}

func (s *server) Installed(ctx context.Context, req *pb.InstalledRequest) (res *pb.Kernel, err error) {
	defer guard(&err)
	k, err := s.impl.Installed(ctx, req.GetRelease())
	if err != nil {
		return nil, toStatus(err)
	}
	return kernelToPB(k), nil
}

func (s *server) Available(ctx context.Context, req *pb.AvailableRequest) (res *pb.KernelsResponse, err error) {
	defer guard(&err)
	ks, err := s.impl.Available(ctx, req.GetFlavour())
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.KernelsResponse{Kernels: each(ks, kernelToPB)}, nil
}

func (s *server) Compare(ctx context.Context, req *pb.CompareRequest) (res *pb.CompareResponse, err error) {
	defer guard(&err)
	d, err := s.impl.Compare(ctx, kernelFromPB(req.GetA()), kernelFromPB(req.GetB()))
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.CompareResponse{Order: int32(cmp.Compare(d, 0))}, nil
}

func (s *server) Fetch(req *pb.FetchRequest, stream grpc.ServerStreamingServer[pb.FetchEvent]) (err error) {
	defer guard(&err)
	// A backend may report from several goroutines, a stream takes one at a time.
	// Once it is broken the context is done and the backend will stop.
	var mu sync.Mutex
	progress := func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		_ = stream.Send(&pb.FetchEvent{Event: &pb.FetchEvent_Progress{
			Progress: &pb.Progress{Text: p.Text, Done: p.Done, Total: p.Total}}})
	}
	m, err := s.impl.Fetch(stream.Context(), FetchRequest{
		Kernel: kernelFromPB(req.GetKernel()),
		Dir:    req.GetDir(),
		Want:   each(req.GetWant(), func(w string) Want { return Want(w) }),
	}, progress)
	if err != nil {
		return toStatus(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return stream.Send(&pb.FetchEvent{Event: &pb.FetchEvent_Materials{Materials: materialsToPB(m)}})
}

func (s *server) Changes(ctx context.Context, req *pb.ChangesRequest) (res *pb.ChangesResponse, err error) {
	defer guard(&err)
	cs, err := s.impl.Changes(ctx, kernelFromPB(req.GetFrom()), kernelFromPB(req.GetTo()))
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.ChangesResponse{Changes: each(cs, changeToPB)}, nil
}

func (s *server) Prebuilt(ctx context.Context, req *pb.PrebuiltRequest) (res *pb.PrebuiltResponse, err error) {
	defer guard(&err)
	ps, err := s.impl.Prebuilt(ctx, kernelFromPB(req.GetFrom()), kernelFromPB(req.GetTo()), req.GetBuildId())
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.PrebuiltResponse{Prebuilt: each(ps, prebuiltToPB)}, nil
}

// errNoMaterials is what a client makes of a stream that ended too early.
var errNoMaterials = status.Error(codes.Internal, "the stream of a fetch ended without materials")
