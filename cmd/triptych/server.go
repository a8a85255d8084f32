package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// serverFlags say which orchestrator a command talks to.
type serverFlags struct {
	address string
	tls     rpcserver.ClientTLS
}

func (f *serverFlags) add(flags *pflag.FlagSet, address, usage string) {
	flags.StringVar(&f.address, "server", address, usage)
	clientTLSFlags(flags, "server-", &f.tls)
}

// dial prepares to reach the server; that it is there shows with the first call. Errors are bad usage.
func (f *serverFlags) dial() (*grpc.ClientConn, error) { return dial(f.address, f.tls) }

func dial(address string, tls rpcserver.ClientTLS) (*grpc.ClientConn, error) {
	if err := checkTarget("server", "server", address); err != nil {
		return nil, err
	}
	credentials, err := rpcserver.DialCredentials(tls, nil)
	if err != nil {
		return nil, usageError{err}
	}
	conn, err := grpc.NewClient(address, append(stagerpc.DialOptions(), grpc.WithTransportCredentials(credentials))...)
	if err != nil {
		return nil, usageError{fmt.Errorf("--server %s: %w", address, err)}
	}
	return conn, nil
}

// readyModels are those of a server, once that has found all its stages.
func readyModels(ctx context.Context, conn *grpc.ClientConn) ([]*triptychv1alpha1.Model, error) {
	service := triptychv1alpha1.GenerationService_ServiceDesc.ServiceName
	health, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	var now *healthpb.HealthCheckResponse
	for err == nil && now.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		now, err = health.Recv()
	}
	if err != nil {
		return nil, err
	}
	list, err := triptychv1alpha1.NewModelServiceClient(conn).ListModels(ctx, &triptychv1alpha1.ListModelsRequest{})
	return list.GetModels(), err
}

// told is what the error of a call means: nil at the end of a stream.
func (f *serverFlags) told(conn *grpc.ClientConn, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	switch st := status.Convert(err); {
	case len(st.Details()) > 0: // it says itself what is wrong
	case st.Code() == codes.Unimplemented:
		return fmt.Errorf("the server at %s is no orchestrator of Triptych: expected the address of one, not that of a stage", conn.Target())
	case st.Code() == codes.Unavailable:
		// The command may be ending, which is no reason not to tell why.
		why := rpcserver.Diagnose(context.Background(), conn.Target(), f.tls)
		switch why {
		case "": // it answers again, or to others
			return fmt.Errorf("the connection to the server at %s was lost: %s", conn.Target(), st.Message())
		case rpcserver.SpeaksTLS:
			why += "; --server-ca asks for TLS"
		case rpcserver.SpeaksPlain:
			why += "; without --server-ca and --server-client-cert it is plaintext"
		}
		return fmt.Errorf("no Triptych server answers at %s: %s", conn.Target(), why)
	}
	return stagerpc.FromStatus(err, 0)
}

// watch hands every news about memory, and about jobs if they are asked for, to each, until ctx ends, which is no error, each fails or the
// server says no more.
func (f *serverFlags) watch(ctx context.Context, jobs bool, each func(*triptychv1alpha1.WatchResidencyResponse) error) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is under way then
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := triptychv1alpha1.NewResidencyServiceClient(conn).WatchResidency(ctx, &triptychv1alpha1.WatchResidencyRequest{Jobs: jobs})
	for err == nil {
		var news *triptychv1alpha1.WatchResidencyResponse
		if news, err = stream.Recv(); err == nil {
			if err := each(news); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return f.told(conn, err)
}
