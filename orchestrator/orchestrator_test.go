package orchestrator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

// stages serves a fake of each kind over TCP until the test ends.
func stages(t *testing.T, denoiser *stagetest.Script) map[stage.Kind][]string {
	t.Helper()
	addresses := map[stage.Kind][]string{}
	for _, kind := range stage.Kinds() {
		script := &stagetest.Script{}
		if kind == stage.KindDenoiser && denoiser != nil {
			script = denoiser
		}
		lis := listen(t)
		serve(t, kind, stagetest.New(kind, script), lis)
		addresses[kind] = []string{lis.Addr().String()}
	}
	return addresses
}

// serve serves a stage until the test ends.
func serve(t *testing.T, kind stage.Kind, s stage.Stage, lis net.Listener) (server *grpc.Server) {
	t.Helper()
	server = grpc.NewServer(append(stagerpc.ServerOptions(), grpc.WaitForHandlers(true))...)
	stagerpc.Register(server, kind, s, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return server
}

func options() Options {
	return Options{Logger: slog.New(slog.DiscardHandler), MaxJobs: 2, Patience: time.Minute, CheckpointEveryNSteps: 5, SendTimeout: time.Minute}
}

// log is a buffer for concurrent use.
type log struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

// TestRun: a request over TCP; and Run ends with its context, with a request at work, leaving nothing.
func TestRun(t *testing.T) {
	var script stagetest.Script
	var text log
	o := options()
	o.Stages, o.Logger = stages(t, &script), slog.New(slog.NewTextHandler(&text, nil))
	lis := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Run(ctx, lis, o) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := triptychv1alpha1.NewGenerationServiceClient(conn)
	request := &triptychv1alpha1.GenerateRequest{Spec: &triptychv1alpha1.GenerationSpec{Model: stagetest.Model, Prompt: "a boat"}}
	generate := func() (images int, err error) {
		stream, err := client.Generate(t.Context(), request)
		for err == nil {
			var e *triptychv1alpha1.GenerateResponse
			if e, err = stream.Recv(); e.GetImageReady() != nil {
				images++
			}
		}
		return images, err
	}
	if images, err := generate(); images != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("%d images, %v", images, err)
	}
	request.Spec.InitImage = append(stagetest.Photo(32, 32).Data, make([]byte, 15<<20)...) // far more than grpc's default
	if images, err := generate(); images != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("with a large file: %d images, %v", images, err)
	}
	request.Spec.InitImage = nil
	gate := script.Hold(stagetest.OpDenoise, 3)
	cut := make(chan error)
	go func() {
		_, err := generate()
		cut <- err
	}()
	<-gate.Entered()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run ended with %v", err)
	}
	if err := <-cut; errors.Is(err, io.EOF) {
		t.Error("the request that was cut off ended well")
	}
	for _, want := range []string{"stage is there", "residency action=load", "reason=", "msg=completed"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, text.String())
		}
	}
}

// TestRunRefuses: what cannot work is refused, and the listener closed.
func TestRunRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Options){
		"no jobs":            func(o *Options) { o.MaxJobs = 0 },
		"negative steps":     func(o *Options) { o.CheckpointEveryNSteps = -1 },
		"negative patience":  func(o *Options) { o.Patience = -1 },
		"no time to send":    func(o *Options) { o.SendTimeout = -1 },
		"no such authority":  func(o *Options) { o.StageTLS = rpcserver.ClientTLS{CAFile: "no/such/file"} },
		"no certificate":     func(o *Options) { o.TLS = rpcserver.TLS{CertFile: "no/such/file"} },
		"one address, twice": func(o *Options) { o.Stages = map[stage.Kind][]string{stage.KindEncoder: {"x:1", "x:1"}} },
	} {
		o, lis := options(), listen(t)
		spoil(&o)
		if err := Run(t.Context(), lis, o); !errors.As(err, new(*OptionError)) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := lis.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener is open: %v", name, err)
		}
	}
}
