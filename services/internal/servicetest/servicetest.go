// Package servicetest has what the tests of the services share: the fakes that a test binary serves
// as a runtime child, and a service that runs as long as its test.
//
// Nothing but tests may import it.
package servicetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/services/internal/service"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// What the test binary does as a child.
const (
	kindKey   = "SERVICE_TEST_KIND"
	scriptKey = "SERVICE_TEST_SCRIPT"
	// GateKey names a named pipe: each child starts once somebody has written to it.
	GateKey = "SERVICE_TEST_GATE"
	// ModelsKey is "none", "broken" for models that have a problem each, or "torn" for components that have one.
	ModelsKey = "SERVICE_TEST_MODELS"
)

// Main is the TestMain of a service's tests.
func Main(m *testing.M) {
	if stageplugin.IsChild() {
		if err := playFake(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func playFake() error {
	script, err := stagetest.ParseScript(os.Getenv(scriptKey))
	if err != nil {
		return err
	}
	kind, ok := stage.ParseKind(os.Getenv(kindKey))
	if !ok {
		return fmt.Errorf("no such kind: %q", os.Getenv(kindKey))
	}
	if gate := os.Getenv(GateKey); gate != "" {
		if _, err := os.ReadFile(gate); err != nil {
			return err
		}
	}
	return stageplugin.Serve(kind, library{stagetest.New(kind, script), os.Getenv(ModelsKey)}, nil)
}

// library is a fake whose models are what a test says.
type library struct {
	*stagetest.Fake
	models string
}

// Info is the fake's, with other models.
func (l library) Info(ctx context.Context) (stage.Info, error) {
	info, err := l.Fake.Info(ctx)
	switch l.models {
	case "none":
		info.Models, info.Components = nil, nil
	case "broken":
		for i := range info.Models {
			info.Models[i].Problem = "its files are damaged"
		}
	case "torn":
		for i := range info.Components {
			info.Components[i].Problem = "its weights are cut off"
		}
	}
	return info, err
}

// Warm is the script of a fake that keeps weights warm.
var Warm = fmt.Sprintf("warm %d", stagetest.WarmBudget)

// Options are those of a service whose runtime is a fake that follows a script.
func Options(kind stage.Kind, script string) service.Options {
	return service.Options{
		Command: []string{os.Args[0]},
		Env: []string{
			kindKey + "=" + kind.String(), scriptKey + "=" + script,
			"GORACE=atexit_sleep_ms=0", // the race detector sleeps a second at exit
		},
		Logger: slog.New(slog.DiscardHandler),
	}
}

// Running is a service that runs.
type Running struct {
	Conn *grpc.ClientConn
	Stop context.CancelFunc // ends Run's context
	Done <-chan struct{}    // closed when Run has returned
	Err  error              // Run's, once it has returned
}

// Start runs a service on a port of its own until the test ends, and connects to it.
func Start(t *testing.T, s *service.Service, err error) *Running {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	lis, err := rpcserver.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r := &Running{Stop: cancel, Done: done}
	go func() {
		defer close(done)
		r.Err = s.Run(ctx, lis)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if r.Err != nil {
			t.Errorf("Run: %v", r.Err)
		}
		if _, err := lis.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the listener is left open: %v", err)
		}
	})
	r.Conn, err = grpc.NewClient(lis.Addr().String(),
		append(stagerpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Conn.Close() })
	return r
}

// Health is the health of a service by its gRPC name.
func (r *Running) Health(t *testing.T, name string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	res, err := healthpb.NewHealthClient(r.Conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
	if err != nil {
		t.Fatalf("health of %q: %v", name, err)
	}
	return res.GetStatus()
}

// Services are the names that reflection lists.
func (r *Running) Services(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(r.Conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range res.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names
}

// Test runs the contract suite against a service, over the whole way of TCP, service, host, unix socket and child, and checks what
// it serves.
func Test(t *testing.T, kind stage.Kind, open func(service.Options) (*service.Service, error)) {
	run := func(t *testing.T) *Running {
		s, err := open(Options(kind, Warm))
		return Start(t, s, err)
	}
	stagetest.ContractOfFakes(t, func(t *testing.T, kind stage.Kind) (stage.Stage, *stagetest.Script) {
		return stagerpc.New(run(t).Conn, kind), nil
	}, kind)
	t.Run("Services", func(t *testing.T) {
		r := run(t)
		names := r.Services(t)
		for _, name := range []string{"triptych.stage.v1alpha1.StageService", "triptych.stage.v1alpha1.WorkService"} {
			if status := r.Health(t, name); status != healthpb.HealthCheckResponse_SERVING {
				t.Errorf("health of %s with nothing resident: %v", name, status)
			}
			if !slices.Contains(names, name) {
				t.Errorf("reflection does not list %s: %v", name, names)
			}
		}
	})
}
