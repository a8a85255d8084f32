package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// What the test binary does as a child.
const (
	kindKey   = "HOST_TEST_KIND"
	scriptKey = "HOST_TEST_SCRIPT" // of the fake
	onceKey   = "HOST_TEST_ONCE"   // a folder to make; who cannot, because it is there, has no script
	thenKey   = "HOST_TEST_THEN"   // "refuse": children without a script do not start
)

func TestMain(m *testing.M) {
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
	text := os.Getenv(scriptKey)
	if folder := os.Getenv(onceKey); folder != "" && os.Mkdir(folder, 0o700) != nil {
		if os.Getenv(thenKey) == "refuse" {
			return fmt.Errorf("refusing to start")
		}
		text = ""
	}
	script, err := stagetest.ParseScript(text)
	if err != nil {
		return err
	}
	logger := stageplugin.NewChildLogger(slog.LevelInfo)
	kind, _ := stage.ParseKind(os.Getenv(kindKey))
	return stageplugin.Serve(kind, announcing{stagetest.New(kind, script), logger}, logger)
}

// announcing is a stage that says in the log which turn it is asked to take.
type announcing struct {
	stage.Stage
	logger *slog.Logger
}

func (a announcing) Work(ctx context.Context, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	a.logger.Info("turn " + req.Turn)
	return a.Stage.Work(ctx, req, o)
}

// options launch a fake.
func options(kind stage.Kind, env ...string) stageplugin.Options {
	return stageplugin.Options{
		Kind: kind, Command: []string{os.Args[0]}, Logger: slog.New(slog.DiscardHandler),
		// The race detector sleeps a second at exit.
		Env: append(env, kindKey+"="+kind.String(), "GORACE=atexit_sleep_ms=0"),
	}
}

// component is the first one of a host's stage.
func component(h *Host) string { return stagetest.Component(h.options.Kind, stagetest.Model) }

// loading is a load of it.
func loading(h *Host) stage.LoadRequest { return stage.LoadRequest{Component: component(h)} }

// load makes it resident.
func load(t *testing.T, h *Host) {
	t.Helper()
	if err := h.Load(t.Context(), loading(h), nil); err != nil {
		t.Fatal(err)
	}
}

// take takes a turn with it.
func take(ctx context.Context, h *Host) error {
	_, err := h.Work(ctx, stagetest.Request(h.options.Kind), stage.Observer{})
	return err
}

// warm is the script of a fake that keeps weights warm.
var warm = fmt.Sprintf("%s=warm %d", scriptKey, stagetest.WarmBudget)

// once gives the script to the first child only.
func once(t *testing.T, script string) []string {
	return []string{scriptKey + "=" + script, onceKey + "=" + t.TempDir() + "/once"}
}

// open starts a host that ends with the test.
func open(t *testing.T, o stageplugin.Options, c clock) *Host {
	t.Helper()
	h, err := start(t.Context(), o, c, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func realTime() clock { return clock{now: time.Now, after: time.After} }

// fakeTime is a clock that stands still; waits end when the test says so.
type fakeTime struct {
	mu    sync.Mutex
	at    time.Time
	waits chan wait
}

type wait struct {
	d   time.Duration
	end chan time.Time
}

func newFakeTime() *fakeTime { return &fakeTime{waits: make(chan wait, 100)} }

func (f *fakeTime) clock() clock { return clock{now: f.now, after: f.after} }

func (f *fakeTime) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

func (f *fakeTime) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = f.at.Add(d)
}

func (f *fakeTime) after(d time.Duration) <-chan time.Time {
	w := wait{d, make(chan time.Time)}
	f.waits <- w
	return w.end
}

// expect waits for the next wait and checks its length; end it with close.
func (f *fakeTime) expect(t *testing.T, d time.Duration) wait {
	t.Helper()
	w := await(t, "a wait of the clock", f.waits)
	if w.d != d {
		t.Fatalf("the host waits %v, expected %v", w.d, d)
	}
	return w
}

func await[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("waited too long for %s", what)
		panic("unreachable")
	}
}

// kill does kill -9 to the present child and returns when it is gone.
func kill(t *testing.T, h *Host) {
	t.Helper()
	h.mu.Lock()
	child := h.current.child
	h.mu.Unlock()
	if child == nil {
		t.Fatal("there is no child to kill")
	}
	if err := syscall.Kill(child.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the child to end", child.Exited())
}

// wantDied checks an error of a call whose child died.
func wantDied(t *testing.T, h *Host, err error) {
	t.Helper()
	var e *stage.Error
	if !errors.As(err, &e) || e.Reason != stage.RuntimeDied || e.Metadata["stage"] != h.options.Kind.String() {
		t.Errorf("a call whose child died gives %T %v", err, err)
	}
}

// wantFresh checks the generation and that nothing is resident.
func wantFresh(t *testing.T, h *Host, generation uint64) {
	t.Helper()
	info, err := h.Info(t.Context())
	if err != nil || info.Generation != generation || len(info.Resident) > 0 || len(info.Warm) > 0 {
		t.Errorf("Info = generation %d, resident %v, warm %v, %v; expected generation %d and nothing resident or warm",
			info.Generation, info.Resident, info.Warm, err, generation)
	}
}

// watcher is a slog.Handler that signals each record with the message.
type watcher struct {
	message string
	seen    chan struct{}
}

func watchLog(o *stageplugin.Options, message string) <-chan struct{} {
	w := watcher{message, make(chan struct{}, 100)}
	o.Logger = slog.New(w)
	return w.seen
}

func (w watcher) Enabled(context.Context, slog.Level) bool { return true }
func (w watcher) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w watcher) WithGroup(string) slog.Handler            { return w }
func (w watcher) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, w.message) {
		w.seen <- struct{}{}
	}
	return nil
}
