package rpcserver

import (
	"context"
	"crypto/rand"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// recovered makes the error of a call out of what its handler panicked with. The caller gets an
// incident id; what happened and where is in the log under that id, and only there.
func recovered(ctx context.Context, logger *slog.Logger, method string, value any) error {
	incident := rand.Text()
	logger.LogAttrs(ctx, slog.LevelError, "a call panicked",
		slog.String("method", method),
		slog.String("incident_id", incident),
		slog.Any("panic", value),
		slog.String("stack", string(debug.Stack())))
	return stagerpc.ToStatus(ctx, logger, stage.Errorf(stage.EngineFault, "internal error").With("incident_id", incident))
}

func recoverUnary(logger *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
		defer func() {
			if value := recover(); value != nil {
				resp, err = nil, recovered(ctx, logger, info.FullMethod, value)
			}
		}()
		return next(ctx, req)
	}
}

func recoverStream(logger *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		defer func() {
			if value := recover(); value != nil {
				err = recovered(stream.Context(), logger, info.FullMethod, value)
			}
		}()
		return next(srv, stream)
	}
}
