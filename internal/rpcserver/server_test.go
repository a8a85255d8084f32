package rpcserver

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The test service has two methods without a proto of their own.
const service = "triptych.test.TestService"

// behaviour is what both methods do.
type behaviour func(context.Context) error

func (b behaviour) register(s grpc.ServiceRegistrar) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error, next grpc.UnaryServerInterceptor) (any, error) {
			in := &emptypb.Empty{}
			if err := dec(in); err != nil {
				return nil, err
			}
			return next(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/" + service + "/Unary"}, func(ctx context.Context, _ any) (any, error) {
				return &emptypb.Empty{}, b(ctx)
			})
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			return b(stream.Context())
		}}},
	}, b)
}

func callUnary(ctx context.Context, conn *grpc.ClientConn) error {
	return conn.Invoke(ctx, "/"+service+"/Unary", &emptypb.Empty{}, &emptypb.Empty{})
}

func callStream(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+service+"/Stream")
	if err != nil {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// running is a server under test.
type running struct {
	server *Server
	addr   string
	stop   context.CancelFunc
	done   chan error
}

// serve runs a server with b until the test ends.
func serve(t *testing.T, o Options, b behaviour) *running {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	b.register(s)
	lis, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{server: s, addr: lis.Addr().String(), stop: stop, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- s.Serve(ctx, lis)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return r
}

func dial(t *testing.T, addr string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if len(opts) == 0 {
		opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	conn, err := grpc.NewClient(addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// buffer is a log that may be written and read at once.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestPanic(t *testing.T) {
	var log buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r := serve(t, Options{Logger: logger}, func(context.Context) error { panic("the secret of the stack") })
	conn := dial(t, r.addr)
	for name, call := range map[string]func(context.Context, *grpc.ClientConn) error{"unary": callUnary, "stream": callStream} {
		t.Run(name, func(t *testing.T) {
			err := call(t.Context(), conn)
			st := status.Convert(err)
			if st.Code() != codes.Internal || strings.Contains(err.Error(), "secret") {
				t.Fatalf("the call gave %v", err)
			}
			var incident string
			for _, d := range st.Details() {
				if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == "ENGINE_FAULT" {
					incident = info.GetMetadata()["incident_id"]
				}
			}
			lines := strings.Split(log.String(), "\n")
			found := false
			for _, line := range lines {
				if incident != "" && strings.Contains(line, incident) {
					found = strings.Contains(line, "the secret of the stack") && strings.Contains(line, "server_test.go")
				}
			}
			if !found {
				t.Errorf("incident %q is not in the log with its stack:\n%s", incident, log.String())
			}
		})
	}
	if err := callUnary(t.Context(), conn); status.Code(err) != codes.Internal {
		t.Errorf("the server did not survive: %v", err)
	}
}

func TestCallLog(t *testing.T) {
	var log buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r := serve(t, Options{Logger: logger}, func(context.Context) error { return status.Error(codes.NotFound, "nobody here") })
	conn := dial(t, r.addr)
	_, _ = callUnary(t.Context(), conn), callStream(t.Context(), conn)
	r.stop()
	<-r.done // after all handlers
	for _, text := range []string{"method=/" + service + "/Unary", "method=/" + service + "/Stream", "code=NotFound", `error="nobody here"`, "peer=127.0.0.1"} {
		if !strings.Contains(log.String(), text) {
			t.Errorf("the log does not say %s:\n%s", text, log.String())
		}
	}
}

// TestTurnLog: calls of work tell the turn.
func TestTurnLog(t *testing.T) {
	var log buffer
	s, err := New(Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	stagerpc.Register(s, stage.KindDecoder, stagetest.New(stage.KindDecoder, nil), slog.New(slog.DiscardHandler))
	lis, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, lis) }()
	conn := dial(t, lis.Addr().String())
	_, _ = stagerpc.New(conn, stage.KindDecoder).Work(t.Context(), stagetest.ImageRequest(), stage.Observer{}) // nothing is resident
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if want := "method=/triptych.stage.v1alpha1.WorkService/Work code=Aborted"; !strings.Contains(log.String(), want) || !strings.Contains(log.String(), "turn=encode_image") {
		t.Errorf("the log does not say %s and the turn:\n%s", want, log.String())
	}
}

func TestHealthAndReflection(t *testing.T) {
	r := serve(t, Options{}, func(context.Context) error { return nil })
	conn := dial(t, r.addr)
	check := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, name := range []string{"", service} {
			res, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			if err != nil || res.GetStatus() != want {
				t.Errorf("health of %q: %v, %v", name, res.GetStatus(), err)
			}
		}
	}
	check(healthpb.HealthCheckResponse_SERVING)
	r.server.Health().SetDraining(true)
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	if err := callUnary(t.Context(), conn); err != nil {
		t.Errorf("a server that is NOT_SERVING still answers: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
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
	if all := strings.Join(names, " "); !strings.Contains(all, service) || !strings.Contains(all, "grpc.health.v1.Health") {
		t.Errorf("reflection lists %v", names)
	}
}

// TestStopWaits ends the context while a call runs: the call ends well.
func TestStopWaits(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := serve(t, Options{StopTimeout: time.Minute}, func(context.Context) error {
		close(entered)
		<-release
		return nil
	})
	conn := dial(t, r.addr)
	result := make(chan error, 1)
	go func() { result <- callUnary(context.Background(), conn) }()
	<-entered
	r.stop()
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the call that ran: %v", err)
	}
	if err := <-r.done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

// TestStopCuts ends the context while a call runs that does not end by itself.
func TestStopCuts(t *testing.T) {
	entered := make(chan struct{})
	r := serve(t, Options{StopTimeout: 10 * time.Millisecond}, func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	})
	conn := dial(t, r.addr)
	result := make(chan error, 1)
	go func() { result <- callUnary(context.Background(), conn) }()
	<-entered
	r.stop()
	if err := <-result; status.Code(err) != codes.Unavailable {
		t.Errorf("the call that was cut: %v", err)
	}
	if err := <-r.done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestServeFails(t *testing.T) {
	s, err := New(Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lis.Close()
	if err := s.Serve(t.Context(), lis); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve on a closed listener = %v", err)
	}
}

func TestServeEndedContext(t *testing.T) {
	s, err := New(Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx, lis); err != nil {
		t.Errorf("Serve = %v", err)
	}
	if _, err := lis.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener was not closed: %v", err)
	}
}

func TestListen(t *testing.T) {
	lis, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	addr := lis.Addr().String()
	_, err = Listen(addr)
	var inUse *PortInUseError
	if !errors.As(err, &inUse) || inUse.Addr != addr || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("Listen on a port in use = %T %v", err, err)
	}
	if _, err := Listen("nonsense"); err == nil || errors.As(err, &inUse) || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("Listen on nonsense = %v", err)
	}
}
