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

// chatty is a stage that prints where it should not.
type chatty struct {
	stage.Stage
	logger *slog.Logger
}

func (c chatty) Work(ctx context.Context, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	fmt.Println("printed while serving")
	c.logger.Info("encoding", "options", len(req.Options))
	return c.Stage.Work(ctx, req, o)
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

func TestContract(t *testing.T) {
	stagetest.ContractOfFakes(t, func(t *testing.T, kind stage.Kind) (stage.Stage, *stagetest.Script) {
		return launch(t, kind, fmt.Sprintf("%s=warm %d", scriptKey, stagetest.WarmBudget)).Stage(), nil
	})
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
	_, err = child.Stage().Work(t.Context(), stagetest.Request(stage.KindEncoder), stage.Observer{})
	if stage.ReasonOf(err) != stage.StageEvicted {
		t.Fatalf("Work: %v", err)
	}
	log.wait(t, "WARN playing a fake answer=42 kind=encoder message=1")
	log.wait(t, "DEBUG-4 in detail")
	log.wait(t, "DEBUG a plain line")
	log.wait(t, "INFO encoding options=3")
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
	if err := Serve(stage.KindDecoder, stagetest.New(stage.KindDecoder, nil), nil); !errors.Is(err, ErrNotAChild) {
		t.Errorf("Serve = %v", err)
	}
}

func TestPanicEndsChild(t *testing.T) {
	child := launch(t, stage.KindEncoder, scriptKey+"=panic load 2")
	err := child.Stage().Load(t.Context(), stage.LoadRequest{Component: stagetest.Component(stage.KindEncoder, stagetest.Model)}, nil)
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
