package stageplugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

var background = context.Background()

// chatty is an encoder that prints where it should not.
type chatty struct {
	stage.Encoder
	logger *slog.Logger
}

func (c chatty) Encode(ctx context.Context, req stage.EncodeRequest) (stage.Conditioning, error) {
	fmt.Println("printed while serving")
	c.logger.Info("encoding", "prompts", len(req.Prompts))
	return c.Encoder.Encode(ctx, req)
}

// Pulse is that of nothing in particular.
func (chatty) Pulse() stage.Pulse { return stage.Pulse{Running: 3, Moved: 14} }

// TestPulse: a stage's own, and a sign of life of one that has none.
func TestPulse(t *testing.T) {
	for kind, want := range map[stage.Kind]stage.Pulse{stage.KindEncoder: {Running: 3, Moved: 14}, stage.KindDecoder: {}} {
		if p, err := launch(t, kind).Pulse(t.Context()); err != nil || p != want {
			t.Errorf("the pulse of the %v is %+v, %v", kind, p, err)
		}
	}
}

// records is a slog.Handler that keeps what it is given; its lines are "LEVEL message key=value".
type records struct {
	mu    *sync.Mutex
	lines *[]string
	more  chan struct{}
}

func newRecords() records {
	return records{mu: &sync.Mutex{}, lines: &[]string{}, more: make(chan struct{}, 1)}
}

func (r records) Enabled(context.Context, slog.Level) bool { return true }
func (r records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r records) WithGroup(string) slog.Handler            { return r }
func (r records) Handle(_ context.Context, rec slog.Record) error {
	line := rec.Level.String() + " " + rec.Message
	rec.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	*r.lines = append(*r.lines, line)
	select {
	case r.more <- struct{}{}:
	default:
	}
	return nil
}

// wait returns when a line that begins like that is there.
func (r records) wait(t *testing.T, begin string) {
	t.Helper()
	for {
		r.mu.Lock()
		lines := append([]string{}, *r.lines...)
		r.mu.Unlock()
		for _, line := range lines {
			if strings.HasPrefix(line, begin) {
				return
			}
		}
		select {
		case <-r.more:
		case <-time.After(30 * time.Second):
			t.Fatalf("no line begins with %q:\n%s", begin, strings.Join(lines, "\n"))
		}
	}
}

// launch launches a fake that ends with the test.
func launch(t *testing.T, kind stage.Kind, env ...string) *Child {
	t.Helper()
	child, err := Launch(t.Context(), options(kind, env...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(child.Kill)
	return child
}

func options(kind stage.Kind, env ...string) Options {
	// The race detector sleeps a second at exit.
	env = append(env, "GORACE=atexit_sleep_ms=0")
	return Options{Kind: kind, Command: []string{os.Args[0]}, Env: env, Logger: slog.New(slog.DiscardHandler)}
}

func subject[S stage.Resident](kind stage.Kind) stagetest.Subject[S] {
	return stagetest.Subject[S]{
		Open: func(t *testing.T) (S, *stagetest.Script) {
			return launch(t, kind).Stage().(S), nil
		},
		Model: stagetest.Model, Broken: stagetest.Broken, TooLarge: stagetest.TooLarge,
	}
}

func TestEncoderContract(t *testing.T) {
	stagetest.EncoderContract(t, subject[stage.Encoder](stage.KindEncoder), stagetest.Prompts()...)
}

func TestDenoiserContract(t *testing.T) {
	stagetest.DenoiserContract(t, subject[stage.Denoiser](stage.KindDenoiser), stagetest.DenoiseRequest())
}

func TestDecoderContract(t *testing.T) {
	stagetest.DecoderContract(t, subject[stage.Decoder](stage.KindDecoder), stagetest.Latent(), stage.PNG, stage.JPEG)
}

func TestLogs(t *testing.T) {
	log := newRecords()
	o := options(stage.KindEncoder)
	o.Logger = slog.New(log)
	child, err := Launch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer child.Kill()
	encoder := child.Stage().(stage.Encoder)
	_, err = encoder.Encode(t.Context(), stage.EncodeRequest{Model: stagetest.Model, Prompts: stagetest.Prompts()})
	if stage.ReasonOf(err) != stage.StageEvicted {
		t.Fatalf("Encode: %v", err)
	}
	log.wait(t, "WARN playing a fake answer=42 kind=encoder message=1")
	log.wait(t, "DEBUG-4 in detail")
	log.wait(t, "DEBUG a plain line")
	log.wait(t, "INFO encoding prompts=2")
	log.wait(t, "DEBUG printed while serving")
	if !strings.Contains(child.LastOutput(), "a plain line") {
		t.Errorf("the last output is %q", child.LastOutput())
	}
}

func TestStartErrors(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*Options)
		timeout bool
		says    []string
	}{
		{"no command", func(o *Options) { o.Command = nil }, false, []string{"encoder", "command is empty"}},
		{
			"no such program", func(o *Options) { o.Command = []string{"/nowhere/triptych", "runtime"} }, false,
			[]string{"/nowhere/triptych runtime", "no such file"},
		},
		{
			"refuses", func(o *Options) { o.Env = []string{roleKey + "=refuser"} }, false,
			[]string{"exit status 7", "there is no model folder"},
		},
		{
			"other kind", func(o *Options) { o.Kind, o.Env = stage.KindDecoder, []string{roleKey + "=encoder"} }, false,
			[]string{"wants a runtime for the decoder, this is one for the encoder"},
		},
		{"no runtime", func(o *Options) { o.Command = []string{"/bin/echo", "hello"} }, false, []string{"hello", "/bin/echo"}},
		{
			"silent", func(o *Options) { o.Env, o.StartTimeout = []string{roleKey + "=silent"}, 500*time.Millisecond }, true,
			[]string{"within 500ms", "killed"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(stage.KindEncoder)
			c.change(&o)
			child, err := Launch(t.Context(), o)
			var failure *StartError
			if child != nil || !errors.As(err, &failure) {
				t.Fatalf("Launch = %v, %T: %v", child, err, err)
			}
			if (failure.Timeout > 0) != c.timeout {
				t.Errorf("Timeout = %v", failure.Timeout)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
		})
	}
}

func TestLaunchCancelled(t *testing.T) {
	log := newRecords()
	o := options(stage.KindEncoder, roleKey+"=silent")
	o.Logger = slog.New(log)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		log.wait(t, "DEBUG I have nothing to say")
		cancel()
	}()
	if _, err := Launch(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("Launch = %v", err)
	}
	if _, err := Launch(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("Launch with an ended context = %v", err)
	}
}

func TestNotAChild(t *testing.T) {
	if err := ServeDecoder(stagetest.NewDecoder(nil), nil); !errors.Is(err, ErrNotAChild) {
		t.Errorf("ServeDecoder = %v", err)
	}
}

func TestPanicEndsChild(t *testing.T) {
	child := launch(t, stage.KindEncoder, scriptKey+"=panic load 2")
	err := child.Stage().Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil)
	if stage.ReasonOf(err) != stage.StageUnreachable {
		t.Errorf("Load = %v", err)
	}
	if exit := child.Exit(); exit != "exit status 2" {
		t.Errorf("exit = %q", exit)
	}
	child.Kill()
	if !strings.Contains(child.LastOutput(), "scripted panic") {
		t.Errorf("the last output is %q", child.LastOutput())
	}
}
