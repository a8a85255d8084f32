package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"github.com/triptych-serving/triptych/internal/rpcserver"
)

// lifeFlags say where a server tells its health from its first moment to its last, and how long it may take to end.
type lifeFlags struct {
	health listenFlags
	drain  time.Duration
}

func (f *lifeFlags) add(flags *pflag.FlagSet) {
	f.health = listenFlags{name: "health-listen", optional: true}
	f.health.add(flags, "", "address at which Kubernetes asks for liveness, readiness and startup, host:port, in plaintext; only at --listen without")
	flags.DurationVar(&f.drain, drainTimeout, rpcserver.DefaultDrainTimeout, "how long the process takes at most to end when it is told to: running work may end meanwhile, what is left then is cut")
}

const drainTimeout = "drain-timeout"

// begin tells the health of the process until end is called, which comes last.
func (f *lifeFlags) begin(log *slog.Logger) (health *rpcserver.Health, end func(), err error) {
	if f.drain <= 0 {
		return nil, nil, usageError{fmt.Errorf("--%s %v: expected a positive duration, such as 20s", drainTimeout, f.drain)}
	}
	health = rpcserver.NewHealth()
	lis, err := f.health.listen()
	if err != nil || lis == nil {
		return health, func() {}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := rpcserver.ServeHealth(ctx, lis, health, log); err != nil {
			log.Error("nobody tells the health any more", "error", err)
		}
	}()
	return health, func() {
		cancel()
		<-ended
	}, nil
}
