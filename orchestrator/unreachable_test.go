package orchestrator

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestUnreachable: an orchestrator that cannot reach its stages says why: in the log, in its health, in ListModels and to who
// waits for them.
func TestUnreachable(t *testing.T) {
	secure, web, gone := httptest.NewUnstartedServer(nil), httptest.NewServer(nil), listen(t)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	secure.StartTLS()
	defer secure.Close()
	defer web.Close()
	gone.Close()
	var text log
	o := options()
	o.Logger, o.Patience = slog.New(slog.NewTextHandler(&text, nil)), 100*time.Millisecond
	o.Stages = map[stage.Kind][]string{
		stage.KindEncoder:  {secure.Listener.Addr().String()},
		stage.KindDenoiser: {strings.TrimPrefix(web.URL, "http://")},
		stage.KindDecoder:  {gone.Addr().String()},
	}
	causes := map[string]string{"encoder": rpcserver.SpeaksTLS, "denoiser": "speaks HTTP/1", "decoder": "nobody listens there"}
	conn := serveOptions(t, o)
	models := triptychv1alpha1.NewModelServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for known := 0; known < len(causes); {
		res, err := models.ListModels(ctx, &triptychv1alpha1.ListModelsRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatalf("%v of %d causes:\n%s", err, known, text.String())
		}
		known = 0
		for _, s := range res.GetServices() {
			if s.GetAddress() != o.Stages[kind(t, s.GetStage())][0] || s.GetProblem() == "" {
				t.Fatalf("listed is %v", s)
			}
			if strings.Contains(s.GetProblem(), causes[s.GetStage()]) {
				known++
			}
		}
	}
	stream, err := triptychv1alpha1.NewGenerationServiceClient(conn).Generate(ctx, &triptychv1alpha1.GenerateRequest{
		Spec: &triptychv1alpha1.GenerationSpec{Model: stagetest.Model, Prompt: "a boat"},
	})
	for waits := true; err == nil && waits; { // until it ends
		var e *triptychv1alpha1.GenerateResponse
		e, err = stream.Recv()
		waits = e.GetQueued().GetReason() != "" && e.GetQueued().GetStage() == "encoder"
	}
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), rpcserver.SpeaksTLS) || !strings.Contains(err.Error(), o.Stages[stage.KindEncoder][0]) {
		t.Errorf("who waits is told %v", err)
	}
	for name, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": healthpb.HealthCheckResponse_NOT_SERVING, "triptych.v1alpha1.GenerationService": healthpb.HealthCheckResponse_NOT_SERVING,
		"triptych.v1alpha1.ModelService": healthpb.HealthCheckResponse_SERVING,
	} {
		if got := health(ctx, t, conn, name); got != want {
			t.Errorf("health of %q is %v, want %v", name, got, want)
		}
	}
	for name, cause := range causes {
		if n := strings.Count(text.String(), cause); n == 0 {
			t.Errorf("the log has no cause for the %s:\n%s", name, text.String())
		}
	}
}

// TestReady: an orchestrator whose stages are there serves.
func TestReady(t *testing.T) {
	o := options()
	o.Stages = stages(t, nil)
	conn := serveOptions(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{Service: "triptych.v1alpha1.GenerationService"}, grpc.WaitForReady(true))
	for err == nil {
		var res *healthpb.HealthCheckResponse
		if res, err = stream.Recv(); res.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return
		}
	}
	t.Fatal(err)
}

// serveOptions runs an orchestrator until the test ends, and connects to it.
func serveOptions(t *testing.T, o Options) *grpc.ClientConn {
	t.Helper()
	lis := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Run(ctx, lis, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func kind(t *testing.T, name string) stage.Kind {
	k, ok := stage.ParseKind(name)
	if !ok {
		t.Fatalf("%q is no stage", name)
	}
	return k
}

func health(ctx context.Context, t *testing.T, conn *grpc.ClientConn, name string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	res, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: name})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetStatus()
}
