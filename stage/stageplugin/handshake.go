// Package stageplugin is the process line: it serves a stage from a child process, and starts such
// a child from its parent. Parent and child talk the stage protocol over a unix socket in a private
// directory, with certificates made for this one pair.
//
// It is the only importer of hashicorp/go-plugin. It may import stage, stage/stagerpc and grpc.
package stageplugin

import (
	"context"
	"errors"
	"os"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// The cookie tells a child that it is one; it is no secret. The protocol version is that of the
// process line, and changes when a parent and a child of different builds can no longer talk.
const (
	cookieKey       = "TRIPTYCH_RUNTIME_COOKIE"
	cookieValue     = "7c0f4a6b-a5a4-4a39-8d1e-stage"
	kindKey         = "TRIPTYCH_RUNTIME_KIND"
	protocolVersion = 3
)

var handshake = plugin.HandshakeConfig{
	ProtocolVersion:  protocolVersion,
	MagicCookieKey:   cookieKey,
	MagicCookieValue: cookieValue,
}

// ErrNotAChild is returned by Serve in a process that Launch did not start.
var ErrNotAChild = errors.New("a runtime is started by its service, not by hand: no handshake in the environment")

// IsChild tells whether Launch started this process.
func IsChild() bool { return os.Getenv(cookieKey) == cookieValue }

// wire is the stage as go-plugin sees it: how to register it in the child, how to make its client in
// the parent.
type wire struct {
	plugin.NetRPCUnsupportedPlugin
	kind     stage.Kind
	register func(grpc.ServiceRegistrar) // nil in the parent
}

// line is what the parent has of a child: the stage in it, and the connection.
type line struct {
	stage stage.Stage
	conn  grpc.ClientConnInterface
}

// GRPCServer registers the stage in the child.
func (w wire) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	w.register(s)
	return nil
}

// GRPCClient makes the line to the child in the parent.
func (w wire) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return line{stagerpc.New(conn, w.kind), conn}, nil
}

// plugins is the set of the one stage that a child serves.
func (w wire) plugins() plugin.PluginSet { return plugin.PluginSet{w.kind.String(): w} }
