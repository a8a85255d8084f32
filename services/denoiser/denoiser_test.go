package denoiser_test

import (
	"slices"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/triptych-serving/triptych/services/denoiser"
	"github.com/triptych-serving/triptych/services/internal/servicetest"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func run(t *testing.T) *servicetest.Running {
	s, err := denoiser.New(servicetest.Options(stage.KindDenoiser, servicetest.Warm))
	return servicetest.Start(t, s, err)
}

// TestContract is about the whole way: TCP, service, host, unix socket, child.
func TestContract(t *testing.T) {
	stagetest.DenoiserContract(t, stagetest.Subject[stage.Denoiser]{
		Open: func(t *testing.T) (stage.Denoiser, *stagetest.Script) {
			return stagerpc.NewDenoiser(run(t).Conn), nil
		},
		Model: stagetest.Model, Broken: stagetest.Broken, TooLarge: stagetest.TooLarge, Other: stagetest.OtherModel,
	}, stagetest.DenoiseRequest())
}

func TestServices(t *testing.T) {
	r := run(t)
	names := r.Services(t)
	for _, name := range []string{"triptych.stage.v1alpha1.StageService", "triptych.stage.v1alpha1.DenoiserService"} {
		if status := r.Health(t, name); status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %s with nothing resident: %v", name, status)
		}
		if !slices.Contains(names, name) {
			t.Errorf("reflection does not list %s: %v", name, names)
		}
	}
}
