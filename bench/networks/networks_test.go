package networks

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/bench/serve"
)

// childEnv makes this test program our side's child.
const childEnv = "BENCH_NETWORKS_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		flags := flag.NewFlagSet("child", flag.ExitOnError)
		lora := flags.String("lora", "", "")
		_ = flags.Parse(os.Args[1:]) // it exits
		if err := serve.Main(context.Background(), serve.Options{Model: flags.Arg(0), Network: flags.Arg(1), Threads: 1, LoRA: *lora}, os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

var starter = Model{Name: "starter", Path: filepath.Join("..", "..", "models", "starter")}

func options(t *testing.T) Options {
	return Options{Threads: 1, Reps: MinReps, Self: []string{os.Args[0]}, Cache: t.TempDir(), Log: t.Logf}
}

// mostShare of the peak is what Winograd's algorithm could reach at best: it needs up to 5.76 times fewer operations than are
// counted.
const mostShare = 5.76

// TestMeasure measures ourselves beside ourselves, and a peer that is not there.
func TestMeasure(t *testing.T) {
	t.Setenv(childEnv, "1")
	o := options(t)
	o.Run = regexp.MustCompile("encoder|decode|image")
	absent := errors.New("not installed")
	o.Peers = []Engine{
		{Name: "twin", Start: Program(o.Self)},
		{Name: "absent", Start: func(context.Context, Work, int) (side, peer.Hello, error) { return nil, peer.Hello{}, absent }},
	}
	l := &limits.Limits{Threads: 1, FMA: limits.Rate{One: 1, All: 1}}
	list := Starter(starter)
	for i := range list {
		list[i].Image.Steps = 2
	}
	rows, err := Measure(t.Context(), o, list, Engine{}, l)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || l.FMA.One <= 1 {
		t.Fatalf("%d rows, a peak of %v", len(rows), l.FMA.One)
	}
	for _, r := range rows {
		twin := r.Peers[0]
		if r.Ours.Ms.Reps != MinReps || twin.Ms.Reps != MinReps || twin.Ratio <= 0 || twin.Problem != "" || r.GFLOPS <= 0 || r.PeakShare <= 0 || r.PeakShare > mostShare {
			t.Errorf("%s: ours %+v, twin %+v", r.Name, r.Ours, twin)
		}
		if c := twin.Check; c == nil || c.Relative != 0 || c.Levels != 0 || c.Image != (r.Network == peer.Image) {
			t.Errorf("%s: the twin's result differs: %v", r.Name, twin.Check)
		}
		if runtime.GOOS == "linux" && (r.Ours.PeakRSS < 4<<20 || twin.MemoryRatio <= 0) {
			t.Errorf("%s: peaks %d and %d", r.Name, r.Ours.PeakRSS, twin.PeakRSS)
		}
		if r.Peers[1].Problem != absent.Error() || r.Peers[1].Name != "absent" {
			t.Errorf("%s: absent: %+v", r.Name, r.Peers[1])
		}
	}
}

func TestMeasureWithoutPeers(t *testing.T) {
	t.Setenv(childEnv, "1")
	o := options(t)
	o.Run = regexp.MustCompile("decode")
	rows, err := Measure(t.Context(), o, Starter(starter), Engine{}, &limits.Limits{Threads: 1})
	if err != nil || len(rows) != 1 || rows[0].Ours.Ms.Reps != MinReps || len(rows[0].Peers) != 0 {
		t.Errorf("%+v, %v", rows, err)
	}
	o.Self = []string{"no-such-program"}
	if _, err := Measure(t.Context(), o, Starter(starter), Engine{}, &limits.Limits{Threads: 1}); err == nil {
		t.Error("our own side may not be missing")
	}
}

// xl is a tiny Stable Diffusion XL.
var xl = Model{Name: "sdxl", Path: filepath.Join("..", "..", "testdata", "golden", "sdxl", "tiny-sdxl")}

// TestMeasureXL measures a tiny Stable Diffusion XL beside a twin, and its step with a LoRA beside one without.
func TestMeasureXL(t *testing.T) {
	t.Setenv(childEnv, "1")
	o := options(t)
	o.Reps = 1
	o.Peers = []Engine{{Name: "twin", Start: Program(o.Self)}}
	list := SDXL(xl)
	for i := range list {
		list[i].Side /= 8
	}
	rows, err := Measure(t.Context(), o, list, Engine{}, &limits.Limits{Threads: 1, FMA: limits.Rate{One: 1, All: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(list) {
		t.Fatalf("%d rows of %d", len(rows), len(list))
	}
	for i, r := range rows {
		if len(r.Peers) != 1 || r.Peers[0].Problem != "" || r.Peers[0].Check == nil || r.GFLOP <= 0 || r.Ours.PeakLedger <= 0 || r.Peers[0].Ratio <= 0 {
			t.Fatalf("%s: %+v", r.Name, r)
		}
		p, acts := r.Peers[0], list[i].LoRA > 0
		if (p.Name == WithoutLoRAName) != acts || (p.Check.Relative != 0) != acts || (r.Ours.PeakLedger > p.PeakLedger) != acts {
			t.Errorf("%s beside %s: the difference is %v, ledgers %d and %d", r.Name, p.Name, p.Check, r.Ours.PeakLedger, p.PeakLedger)
		}
	}
}

// TestLeave: where memory does not hold both, we take our turns first, and the ratio is to those.
func TestLeave(t *testing.T) {
	var order []string
	us := &player{side: &fake{name: "us", order: &order, seconds: 1}, info: &Side{}, last: result{values: []float32{1}}}
	a := &player{side: &fake{name: "a", order: &order, seconds: 2}, info: &Side{}, last: result{values: []float32{1}}}
	o := Options{Reps: 2}
	if err := errors.Join(us.leave(t.Context(), o, peer.Request{}), takeTurns(t.Context(), o, us, []*player{a}, peer.Request{})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"us", "us", "us left", "a", "a"}, order); diff != "" {
		t.Error(diff)
	}
	if a.info.Ratio != 0.5 || us.info.Ms.Reps != 2 || len(us.info.Samples) != 2 || us.info.PeakLedger != 1<<19 {
		t.Errorf("us %+v, a %+v", us.info, a.info)
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		ours      bool
		available int64
		want      bool
	}{{false, 0, true}, {false, 350, true}, {false, 349, false}, {true, 200, true}, {true, 199, false}} {
		if got := fits([]Engine{{Needs: 100, Ours: c.ours}}, 100, c.available); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// fake is a side that answers at once and writes down when it was asked.
type fake struct {
	name    string
	order   *[]string
	seconds float64
	failAt  int // 0 never
	calls   int
}

func (f *fake) do(peer.Request) (float64, result, peer.Hello, error) {
	f.calls++
	*f.order = append(*f.order, f.name)
	if f.calls == f.failAt {
		return 0, result{}, peer.Hello{}, errors.New("it broke")
	}
	return f.seconds, result{values: []float32{1}}, peer.Hello{}, nil
}

func (f *fake) peak() (rss, ledger int64, err error) { return 1 << 20, 1 << 19, nil }
func (f *fake) close()                               { *f.order = append(*f.order, f.name+" left") }

func TestTakeTurns(t *testing.T) {
	var order []string
	join := func(name string, seconds float64, failAt int) *player {
		return &player{side: &fake{name: name, order: &order, seconds: seconds, failAt: failAt}, info: &Side{Name: name}, last: result{values: []float32{1}}}
	}
	us, a, b := join("us", 0.5, 0), join("a", 1, 0), join("b", 2, 2)
	if err := takeTurns(t.Context(), Options{Reps: 10}, us, []*player{a, b}, peer.Request{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Fields("us a b a b us us a"), order); diff != "" { // b fails the second time
		t.Error(diff)
	}
	if a.info.Ratio != 0.5 || b.info.Ratio != 0.25 || b.info.Problem != "left out after 1 repetitions: it broke" || len(a.info.Samples) != 3 || len(b.info.Samples) != 1 {
		t.Errorf("a %+v, b %+v", a.info, b.info)
	}
	us = join("us", 1, 1)
	if err := takeTurns(t.Context(), Options{Reps: 1}, us, nil, peer.Request{}); err == nil {
		t.Error("our own error was lost")
	}
	wrong := join("wrong", 1, 0)
	wrong.last.values = []float32{float32(math.NaN())}
	if err := takeTurns(t.Context(), Options{Reps: 1}, join("us", 1, 0), []*player{wrong}, peer.Request{}); err != nil || wrong.info.Problem == "" || len(wrong.info.Samples) != 0 {
		t.Errorf("a peer without a result took part: %+v, %v", wrong.info, err)
	}
}

// TestSlowPeer: the first run of a peer that would take hours is its figure.
func TestSlowPeer(t *testing.T) {
	var order []string
	us := &player{side: &fake{name: "us", order: &order, seconds: 1}, info: &Side{}}
	slow := &player{side: &fake{name: "slow", order: &order}, info: &Side{}, first: 90e3}
	if err := takeTurns(t.Context(), Options{Reps: MinReps, Time: time.Minute}, us, []*player{slow}, peer.Request{}); err != nil || len(order) != MinReps {
		t.Errorf("took turns %v: %v", order, err)
	}
	if s := slow.info; len(s.Samples) != 1 || s.Samples[0] != 90e3 || s.Ratio != 1.0/90 {
		t.Errorf("%+v", s)
	}
}

// TestTime: a row ends when its time is over, but not before the least number of repetitions.
func TestTime(t *testing.T) {
	for limit, want := range map[time.Duration]int{0: MinReps, time.Hour: 7} {
		var order []string
		us := &player{side: &fake{name: "us", order: &order, seconds: 1}, info: &Side{}}
		if err := takeTurns(t.Context(), Options{Reps: 7, Time: limit}, us, nil, peer.Request{}); err != nil || len(order) != want {
			t.Errorf("%v: %d repetitions, want %d, %v", limit, len(order), want, err)
		}
	}
}

func TestTurn(t *testing.T) {
	run := peer.Request{Op: "run"}
	if diff := cmp.Diff(run, turn(run, 3)); diff != "" {
		t.Error(diff)
	}
	image := starterImage()
	first, second := turn(peer.Request{Op: "image", ImageRequest: &image}, 0), turn(peer.Request{Op: "image", ImageRequest: &image}, 1)
	if first.Prompt == second.Prompt || image.Prompt != starterImage().Prompt || first.Seed != image.Seed || first.Steps != image.Steps {
		t.Errorf("%+v, %+v of %+v", first.ImageRequest, second.ImageRequest, image)
	}
}

func TestTogether(t *testing.T) {
	engines := []Engine{{Needs: 100}, {Needs: 100}}
	for _, c := range []struct {
		stored, available int64
		want              int
	}{{10, 1000, 2}, {10, 400, 1}, {1000, 0, 2}} {
		if got := together(engines, c.stored, c.available); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestCompare(t *testing.T) {
	c, err := compare(result{values: []float32{1, -4, 2}}, result{values: []float32{1, -4.5, 2}})
	if err != nil || math.Abs(c.Relative-0.5/4.5) > 1e-12 || c.String() != "1.1e-01" {
		t.Errorf("%v, %v", c, err)
	}
	for _, other := range [][]float32{nil, {1, 2}, {0, 0, 0}, {1, float32(math.Inf(1)), 2}} {
		if _, err := compare(result{values: []float32{1, -4, 2}}, result{values: other}); err == nil {
			t.Errorf("compared with %v", other)
		}
	}
	picture := func(level uint8) []byte {
		img := image.NewNRGBA(image.Rect(0, 0, 2, 1))
		img.Set(0, 0, color.NRGBA{10, 20, 30, 255})
		img.Set(1, 0, color.NRGBA{10, 20, level, 255})
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	c, err = compare(result{png: picture(30)}, result{png: picture(33)})
	if err != nil || c.Levels != 3 || math.Abs(c.Unequal-1.0/6) > 1e-12 || c.String() != "3/255 in 16.67 %" {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := compare(result{png: picture(1)}, result{}); err == nil {
		t.Error("compared with no image")
	}
	if s := (*Check)(nil).String(); s != "-" {
		t.Errorf("no check is %q", s)
	}
}

func TestDenoising(t *testing.T) {
	for line, want := range map[string]bool{
		`{"sequence":"30","progress":{"stage":"denoiser","steps":20}}`: true,
		`{"progress":{"stage":"encoder","step":1,"steps":1}}`:          false,
		`{"residency":{"stage":"denoiser"}}`:                           false,
		`seed 42`:                                                      false,
	} {
		if got := denoising([]byte(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func TestFamilyRSS(t *testing.T) {
	proc := t.TempDir()
	for pid, p := range map[int][2]int{10: {1, 100}, 11: {10, 20}, 12: {11, 3}, 20: {1, 1000}} {
		dir := filepath.Join(proc, fmt.Sprint(pid))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"stat": fmt.Sprintf("%d (a (b) c) S %d 0", pid, p[0]), "status": fmt.Sprintf("Name:\tx\nVmHWM:\t   %d kB\n", p[1]),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := familyRSS(proc, 10); err != nil || got != 123<<10 {
		t.Errorf("%d bytes, %v, want 123 KiB", got, err)
	}
}

func TestMeasureLoad(t *testing.T) {
	rows, err := MeasureLoad(t.Context(), options(t), starter, limits.Limits{Memcpy: limits.Rate{One: 5, All: 10}, Fresh: limits.Rate{One: 3, All: 6}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.Name)
		if r.Bytes <= 0 || r.WarmGB <= 0 || r.MemcpyShare <= 0 || r.FreshShare <= r.MemcpyShare || (runtime.GOOS == "linux") != (r.DiskShare > 0) {
			t.Errorf("%+v", r)
		}
	}
	if diff := cmp.Diff([]string{"starter text_encoder", "starter unet", "starter vae"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestPythonPeers(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"ort.py", "eager.py", "common.py", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names := func(chosen []string) (out []string) {
		engines, err := PythonPeers(t.Context(), "sh", folder, "cache", chosen)
		if err != nil {
			return []string{"error"}
		}
		for _, e := range engines {
			out = append(out, e.Name)
		}
		return out
	}
	for name, text := range map[string]string{"ov.py": `echo '["bf16", "f32"]'`, "torch.py": `echo '["f32", "bf16"]'`} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, chosen := range map[string][]string{
		"eager; ort; ov bf16, its default; ov f32; torch f32, its default; torch bf16": nil, "ort": {"ort"}, "error": {"nothing"},
		"torch bf16; ov bf16, its default": {"torch:bf16", "ov:bf16"},
	} {
		if got := strings.Join(names(chosen), "; "); got != want {
			t.Errorf("%v: %q, want %q", chosen, got, want)
		}
	}
	if got := strings.Join(names([]string{"torch:f16"}), "; "); got != "error" {
		t.Errorf("a type that torch does not compute in: %q", got)
	}
}
