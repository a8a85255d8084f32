package stagerpc_test

import (
	"log/slog"
	"testing"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// over is a stage behind a connection.
func over(t *testing.T, kind stage.Kind, s stage.Stage) stage.Stage {
	return stagerpc.New(connect(t, kind, s), kind)
}

func connect(t *testing.T, kind stage.Kind, s stage.Stage, options ...grpc.ServerOption) *grpc.ClientConn {
	return stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.Register(r, kind, s, quiet()) }, options...)
}

// TestContract runs the suite over one hop, and over the two of orchestrator, service and runtime.
func TestContract(t *testing.T) {
	for i, name := range []string{"OneHop", "TwoHops"} {
		t.Run(name, func(t *testing.T) {
			stagetest.ContractOfFakes(t, func(t *testing.T, kind stage.Kind) (stage.Stage, *stagetest.Script) {
				script := &stagetest.Script{}
				script.Warm(stagetest.WarmBudget)
				var s stage.Stage = stagetest.New(kind, script)
				for range i + 1 {
					s = over(t, kind, s)
				}
				return s, script
			})
		})
	}
}
