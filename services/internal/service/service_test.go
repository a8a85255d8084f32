package service_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/services/denoiser"
	"github.com/triptych-serving/triptych/services/internal/service"
	"github.com/triptych-serving/triptych/services/internal/servicetest"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
)

var unet = stagetest.Component(stage.KindDenoiser, stagetest.Model)

func run(t *testing.T, o service.Options) (*servicetest.Running, stage.Stage) {
	t.Helper()
	s, err := denoiser.New(o)
	r := servicetest.Start(t, s, err)
	d := stagerpc.New(r.Conn, stage.KindDenoiser)
	if err := d.Load(t.Context(), stage.LoadRequest{Component: unet}, nil); err != nil {
		t.Fatal(err)
	}
	return r, d
}

// denoise denoises in the background and returns after the first evaluation.
func denoise(t *testing.T, d stage.Stage) <-chan error {
	t.Helper()
	begun, result := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := d.Work(t.Context(), stagetest.Request(stage.KindDenoiser), stage.Observer{Progress: func(done, _ int) {
			if done == 1 {
				close(begun)
			}
		}})
		result <- err
	}()
	select {
	case <-begun:
	case err := <-result:
		t.Fatalf("Work: %v", err)
	}
	return result
}

// TestStopDrains ends Run while work runs: it ends well, and so does Run.
func TestStopDrains(t *testing.T) {
	r, d := run(t, servicetest.Options(stage.KindDenoiser, ""))
	result := denoise(t, d)
	r.Stop()
	if err := <-result; err != nil {
		t.Errorf("work that ran at the end: %v", err)
	}
	<-r.Done
	if _, err := d.Info(t.Context()); stage.ReasonOf(err) != stage.StageUnreachable {
		t.Errorf("Info after the end: %v", err)
	}
}

// TestStopCuts ends Run while work runs that does not end.
func TestStopCuts(t *testing.T) {
	o := servicetest.Options(stage.KindDenoiser, "hold denoise 2")
	o.DrainTimeout = 50 * time.Millisecond
	r, d := run(t, o)
	result := denoise(t, d)
	r.Stop()
	<-r.Done
	if err := <-result; stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("work that was cut: %v", err)
	}
}

// TestDrain asks a service over the wire to drain, and to work again. It is evicted and then drained.
func TestDrain(t *testing.T) {
	r, d := run(t, servicetest.Options(stage.KindDenoiser, ""))
	if _, err := d.Evict(t.Context(), stage.EvictRequest{Component: unet}); err != nil {
		t.Fatal(err)
	}
	if status := r.Health(t, "triptych.stage.v1alpha1.WorkService"); status != serving {
		t.Errorf("health of an evicted stage: %v", status)
	}
	watch, err := healthpb.NewHealthClient(r.Conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "triptych.stage.v1alpha1.WorkService"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for {
		res, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if res.GetStatus() == notServing {
			break
		}
	}
	if err := d.Load(t.Context(), stage.LoadRequest{Component: unet}, nil); stage.ReasonOf(err) != stage.StageDraining {
		t.Errorf("Load while draining: %v", err)
	}
	if info, err := d.Info(t.Context()); err != nil || !info.Draining {
		t.Errorf("Info while draining: %+v, %v", info, err)
	}
	if err := d.Undrain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for {
		res, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if res.GetStatus() == serving {
			break
		}
	}
	if err := d.Load(t.Context(), stage.LoadRequest{Component: unet}, nil); err != nil {
		t.Errorf("Load behind Undrain: %v", err)
	}
}

// TestDeath is how a caller over the wire sees a runtime that dies.
func TestDeath(t *testing.T) {
	_, d := run(t, servicetest.Options(stage.KindDenoiser, "exit denoise 2 9"))
	before, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Work(t.Context(), stagetest.Request(stage.KindDenoiser), stage.Observer{})
	var e *stage.Error
	if !errors.As(err, &e) || e.Reason != stage.RuntimeDied || e.Metadata["stage"] != "denoiser" {
		t.Errorf("Work = %v", err)
	}
	if info, err := d.Info(t.Context()); err != nil || info.Generation != before.Generation+1 || len(info.Resident) > 0 {
		t.Errorf("Info after a death: %+v, %v", info, err)
	}
}

func TestNewFails(t *testing.T) {
	if _, err := denoiser.New(denoiser.Options{}); err == nil || !strings.Contains(err.Error(), "denoiser") {
		t.Errorf("New without a command = %v", err)
	}
	o := servicetest.Options(stage.KindDenoiser, "")
	o.TLS.CertFile = "cert.pem"
	if _, err := denoiser.New(o); err == nil {
		t.Error("New with half a TLS pair gave no error")
	}
}

func TestRunFails(t *testing.T) {
	o := servicetest.Options(stage.KindDenoiser, "")
	o.Command = []string{"/nowhere/triptych"}
	s, err := denoiser.New(o)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := rpcserver.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var failure *stageplugin.StartError
	if err := s.Run(t.Context(), lis); !errors.As(err, &failure) {
		t.Errorf("Run = %v", err)
	}
	if again, err := rpcserver.Listen(lis.Addr().String()); err != nil {
		t.Errorf("Run left the port taken: %v", err)
	} else {
		again.Close()
	}
}

func TestRunEndedContext(t *testing.T) {
	s, err := denoiser.New(servicetest.Options(stage.KindDenoiser, ""))
	if err != nil {
		t.Fatal(err)
	}
	lis, err := rpcserver.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, lis); err != nil {
		t.Errorf("Run = %v", err)
	}
}
