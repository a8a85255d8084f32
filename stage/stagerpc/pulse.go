package stagerpc

import (
	"context"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
)

// RegisterPulse serves the pulse of a runtime process. pulse waits for nothing.
func RegisterPulse(s grpc.ServiceRegistrar, pulse func() stage.Pulse) {
	stagepb.RegisterRuntimeServiceServer(s, pulseServer{pulse: pulse})
}

type pulseServer struct {
	stagepb.UnimplementedRuntimeServiceServer
	pulse func() stage.Pulse
}

func (s pulseServer) GetPulse(context.Context, *stagepb.GetPulseRequest) (*stagepb.GetPulseResponse, error) {
	p := s.pulse()
	return &stagepb.GetPulseResponse{Running: saturate(p.Running), Moved: p.Moved}, nil
}

// Pulse asks the runtime process at the other end of conn for its pulse.
func Pulse(ctx context.Context, conn grpc.ClientConnInterface) (stage.Pulse, error) {
	res, err := call(ctx, 0, stagepb.NewRuntimeServiceClient(conn).GetPulse, &stagepb.GetPulseRequest{})
	return stage.Pulse{Running: int(res.GetRunning()), Moved: res.GetMoved()}, err
}
