package rpcserver

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// logCall writes one call at level debug.
func logCall(ctx context.Context, logger *slog.Logger, method, turn string, begin time.Time, err error) {
	if !logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", method),
		slog.String("code", status.Code(err).String()),
		slog.Duration("took", time.Since(begin)),
	}
	if turn != "" {
		attrs = append(attrs, slog.String("turn", turn))
	}
	if id := stagerpc.RequestOf(ctx); id != "" {
		attrs = append(attrs, slog.String("request", id))
	}
	if p, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer", p.Addr.String()))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", status.Convert(err).Message()))
	}
	logger.LogAttrs(ctx, slog.LevelDebug, "call", attrs...)
}

func logUnary(logger *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		begin := time.Now()
		resp, err := next(ctx, req)
		logCall(ctx, logger, info.FullMethod, "", begin, err)
		return resp, err
	}
}

func logStream(logger *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		begin, heard := time.Now(), &listener{ServerStream: stream}
		err := next(srv, heard)
		logCall(stream.Context(), logger, info.FullMethod, heard.turn, begin, err)
		return err
	}
}

// listener is a stream that notes which turn its caller asks for, if it is work.
type listener struct {
	grpc.ServerStream
	turn string
}

func (l *listener) RecvMsg(m any) error {
	err := l.ServerStream.RecvMsg(m)
	l.turn = cmp.Or(l.turn, stagerpc.TurnOf(m))
	return err
}
