// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"

	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pb "github.com/upsplice/upsplice/plugins/backend/backendpb"
)

// Handshake is what host and backend must agree on. The cookie is no secret: it
// only tells a person who starts a backend by hand what it is.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  Version,
	MagicCookieKey:   "UPSPLICE_BACKEND",
	MagicCookieValue: "6f0d8e1c-a-backend-of-upsplice",
}

// PluginName is the name under which go-plugin dispenses the backend.
const PluginName = "backend"

// MaxMessage limits one message in either direction, in bytes. The largest are
// the changes of many versions, some hundred kilobytes.
const MaxMessage = 8 << 20

// Plugin joins a Backend to go-plugin.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	Impl Backend // of the serving side
}

var _ plugin.GRPCPlugin = (*Plugin)(nil)

// GRPCServer registers the backend.
func (p *Plugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	pb.RegisterBackendServer(s, &server{impl: p.Impl})
	return nil
}

// GRPCClient returns a Backend.
func (p *Plugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return NewClient(conn), nil
}

// Plugins is the set for plugin.ClientConfig and plugin.ServeConfig; impl is nil
// on the client's side.
func Plugins(impl Backend) plugin.PluginSet {
	return plugin.PluginSet{PluginName: &Plugin{Impl: impl}}
}

// DialOptions of a client: the limits on messages.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithDefaultCallOptions(
		grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage))}
}

// NewServer makes the gRPC server of a backend, with the limits on messages.
func NewServer(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage))...)
}
