// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	pb "github.com/upsplice/upsplice/plugins/backend/backendpb"
)

// client is a Backend at the other end of a connection.
type client struct {
	rpc pb.BackendClient
}

var _ Backend = (*client)(nil)

// NewClient returns the backend that is served at the other end of conn. Its
// errors are *Error, or those of ctx.
func NewClient(conn grpc.ClientConnInterface) Backend {
	return &client{rpc: pb.NewBackendClient(conn)}
}

func (c *client) Describe(ctx context.Context) (Description, error) {
	d, err := c.rpc.Describe(ctx, &pb.DescribeRequest{})
	if err != nil {
		return Description{}, fromStatus(ctx, err)
	}
	return Description{Name: d.GetName(), Version: d.GetVersion(), Systems: d.GetSystems()}, nil
}

func (c *client) Kernels(ctx context.Context, packages []Package) ([]Kernel, error) {
	r, err := c.rpc.Kernels(ctx, &pb.KernelsRequest{Packages: each(packages, packageToPB)})
	if err != nil {
		return nil, fromStatus(ctx, err)
	}
	return each(r.GetKernels(), kernelFromPB), nil
}

func (c *client) Installed(ctx context.Context, release string) (Kernel, error) {
	k, err := c.rpc.Installed(ctx, &pb.InstalledRequest{Release: release})
	if err != nil {
		return Kernel{}, fromStatus(ctx, err)
	}
	return kernelFromPB(k), nil
}

func (c *client) Available(ctx context.Context, flavour string) ([]Kernel, error) {
	r, err := c.rpc.Available(ctx, &pb.AvailableRequest{Flavour: flavour})
	if err != nil {
		return nil, fromStatus(ctx, err)
	}
	return each(r.GetKernels(), kernelFromPB), nil
}

func (c *client) Compare(ctx context.Context, a, b Kernel) (int, error) {
	r, err := c.rpc.Compare(ctx, &pb.CompareRequest{A: kernelToPB(a), B: kernelToPB(b)})
	if err != nil {
		return 0, fromStatus(ctx, err)
	}
	return int(r.GetOrder()), nil
}

func (c *client) Fetch(ctx context.Context, req FetchRequest, progress func(Progress)) (Materials, error) {
	// Leaving early, in whatever way, must end the call at the other end too.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.Fetch(ctx, &pb.FetchRequest{
		Kernel: kernelToPB(req.Kernel),
		Dir:    req.Dir,
		Want:   each(req.Want, func(w Want) string { return string(w) }),
	})
	if err != nil {
		return Materials{}, fromStatus(ctx, err)
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = errNoMaterials
		}
		if err != nil {
			return Materials{}, fromStatus(ctx, err)
		}
		if m := ev.GetMaterials(); m != nil {
			return materialsFromPB(m), nil
		}
		if p := ev.GetProgress(); p != nil && progress != nil {
			progress(Progress{Text: p.GetText(), Done: p.GetDone(), Total: p.GetTotal()})
		}
	}
}

func (c *client) Changes(ctx context.Context, from, to Kernel) ([]Change, error) {
	r, err := c.rpc.Changes(ctx, &pb.ChangesRequest{From: kernelToPB(from), To: kernelToPB(to)})
	if err != nil {
		return nil, fromStatus(ctx, err)
	}
	return each(r.GetChanges(), changeFromPB), nil
}

func (c *client) Prebuilt(ctx context.Context, from, to Kernel, buildID string) ([]Prebuilt, error) {
	r, err := c.rpc.Prebuilt(ctx, &pb.PrebuiltRequest{From: kernelToPB(from), To: kernelToPB(to), BuildId: buildID})
	if err != nil {
		return nil, fromStatus(ctx, err)
	}
	return each(r.GetPrebuilt(), prebuiltFromPB), nil
}
