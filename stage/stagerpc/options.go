package stagerpc

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// A peer that is silent for keepaliveTime is asked whether it lives and has keepaliveTimeout to
// answer.
const (
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
)

// ServerKeepalive notices, within both times together, that a client is dead, so that its work stops.
func ServerKeepalive() keepalive.ServerParameters {
	return keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}
}

// KeepalivePolicy lets clients ask as often as those of DialOptions do, and three times that: a server
// that enforced more would send the busy ones away.
func KeepalivePolicy() keepalive.EnforcementPolicy {
	return keepalive.EnforcementPolicy{MinTime: keepaliveTime / 3, PermitWithoutStream: true}
}

// ServerOptions are what a server of stages needs: the message bound and keepalive that agrees with
// DialOptions. Windows are left to grpc's estimator; nothing is compressed.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessageBytes), grpc.KeepaliveParams(ServerKeepalive()), grpc.KeepaliveEnforcementPolicy(KeepalivePolicy()),
	}
}

// DialOptions are what a client of stages needs, credentials aside.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
	}
}
