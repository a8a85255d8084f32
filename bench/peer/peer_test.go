package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeEnv makes this test program a child that behaves as its value says.
const fakeEnv = "BENCH_PEER_FAKE"

func TestMain(m *testing.M) {
	if how := os.Getenv(fakeEnv); how != "" {
		fake(how)
		return
	}
	os.Exit(m.Run())
}

// doubler answers every run with twice its input.
type doubler struct{ in, out []float32 }

func (d *doubler) Prepare(inputs map[string]Tensor) (err error) {
	d.in, err = inputs["x"].Floats()
	return err
}

func (d *doubler) Run(context.Context) error {
	d.out = nil
	for _, v := range d.in {
		if v < 0 {
			return errors.New("a negative value")
		}
		d.out = append(d.out, 2*v)
	}
	return nil
}

func (d *doubler) Output() ([]float32, []int) { return d.out, []int{len(d.out)} }

func (d *doubler) Draw(_ context.Context, r ImageRequest) ([]byte, time.Duration, error) {
	return []byte(fmt.Sprintf("%s %d", r.Prompt, r.Seed)), 3 * time.Second, nil
}

func (d *doubler) PeakLedger() int64 { return 12 }

func fake(how string) {
	fmt.Fprintln(os.Stderr, "first words")
	fmt.Fprintln(os.Stderr, "last words")
	switch how {
	case "doubler":
		hello := Hello{Engine: "doubler", Threads: 2, Notes: map[string]any{"arguments": strings.Join(os.Args[1:], " "), "omp": os.Getenv("OMP_NUM_THREADS")}}
		if err := Serve(context.Background(), os.Stdin, os.Stdout, hello, &doubler{}); err != nil {
			panic(err)
		}
	case "refuses":
		_ = json.NewEncoder(os.Stdout).Encode(Hello{Error: "no such module"})
	case "babbles":
		fmt.Println("Loading weights: 100%")
	case "dies later":
		_ = json.NewEncoder(os.Stdout).Encode(Hello{Engine: "mortal"})
		bufio.NewScanner(os.Stdin).Scan()
	}
}

func start(t *testing.T, how string) (*Child, Hello, error) {
	t.Helper()
	c, hello, err := Start(t.Context(), []string{os.Args[0]}, "MODEL", UNet, 3, fakeEnv+"="+how)
	if c != nil {
		t.Cleanup(c.Close)
	}
	return c, hello, err
}

func TestRun(t *testing.T) {
	c, hello, err := start(t, "doubler")
	if err != nil {
		t.Fatal(err)
	}
	want := Hello{Engine: "doubler", Threads: 2, Notes: map[string]any{"arguments": "MODEL unet 3", "omp": "3"}}
	if diff := cmp.Diff(want, hello); diff != "" {
		t.Error(diff)
	}
	in, err := WriteF32(filepath.Join(t.TempDir(), "x"), []float32{1, 2.5}, 2)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := c.Do(Request{Op: "run", Inputs: map[string]Tensor{"x": in}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := reply.Output.Floats()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float32{2, 5}, got); diff != "" || reply.Seconds <= 0 || filepath.Dir(reply.Output.File) != filepath.Dir(in.File) {
		t.Errorf("%+v: %s", reply, diff)
	}
	if reply, err = c.Do(Request{Op: "rss"}); err != nil || reply.PeakLedger != 12 || (runtime.GOOS == "linux" && reply.PeakRSS < 1<<20) {
		t.Errorf("peak of %d bytes, %v", reply.PeakRSS, err)
	}
	reply, err = c.Do(Request{Op: "image", ImageRequest: &ImageRequest{Prompt: "fox", Seed: 42}})
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(reply.Output.File)
	if file, err := os.ReadFile(reply.Output.File); err != nil || string(file) != "fox 42" || reply.Seconds != 3 {
		t.Errorf("image %q, %v, %v s", file, err, reply.Seconds)
	}
}

// TestErrors: a request that fails is told, and the child answers the next one.
func TestErrors(t *testing.T) {
	c, _, err := start(t, "doubler")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	negative, err := WriteF32(filepath.Join(dir, "x"), []float32{-1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	short := negative
	short.Shape = []int{2}
	for want, r := range map[string]Request{
		"a negative value":             {Op: "run", Inputs: map[string]Tensor{"x": negative}},
		"4 bytes, want 8 of shape [2]": {Op: "run", Inputs: map[string]Tensor{"x": short}},
		"run without inputs":           {Op: "run"},
		`no op "dance"`:                {Op: "dance"},
		"image without a request":      {Op: "image"},
	} {
		if _, err := c.Do(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", r.Op, err, want)
		}
	}
	if _, err := c.Do(Request{Op: "rss"}); err != nil {
		t.Error("after the errors:", err)
	}
}

func TestNoPeer(t *testing.T) {
	for how, want := range map[string]string{
		"refuses": "no such module",
		"babbles": `the child said "Loading weights: 100%`,
		"nothing": "last words",
	} {
		if c, _, err := start(t, how); c != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", how, err, want)
		}
	}
	if c, _, err := Start(t.Context(), []string{"no-such-program"}, "MODEL", UNet, 1); c != nil || err == nil {
		t.Error("a program that is not there was started")
	}
	c, _, err := start(t, "dies later")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(Request{Op: "rss"}); err == nil || !strings.Contains(err.Error(), "the child ended") {
		t.Errorf("a dead child: %v", err)
	}
	c.Close()
	c.Close()
}

// TestLines pins the protocol as programs in other languages read it.
func TestLines(t *testing.T) {
	for want, v := range map[string]any{
		`{"op":"run","inputs":{"sample":{"shape":[1,4],"dtype":"f32","file":"/x"}}}`:                                       Request{Op: "run", Inputs: map[string]Tensor{InputSample: {Shape: []int{1, 4}, DType: "f32", File: "/x"}}},
		`{"op":"image","prompt":"p","negative_prompt":"","steps":20,"guidance_scale":4,"height":128,"width":64,"seed":42}`: Request{Op: "image", ImageRequest: &ImageRequest{Prompt: "p", Steps: 20, GuidanceScale: 4, Height: 128, Width: 64, Seed: 42}},
		`{"seconds":0.5,"output":{"shape":[2],"file":"/y"},"load_seconds":1.5,"notes":{"memory_format":"channels_last"}}`:  Reply{Seconds: 0.5, Output: &Tensor{Shape: []int{2}, File: "/y"}, LoadSeconds: 1.5, Notes: map[string]any{"memory_format": "channels_last"}},
		`{"engine":"torch","versions":{"torch":"2"},"threads":2,"notes":{"a":"b"},"load_seconds":1.2}`:                     Hello{Engine: "torch", Versions: map[string]string{"torch": "2"}, Threads: 2, Notes: map[string]any{"a": "b"}, LoadSeconds: 1.2},
	} {
		got, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestTensorFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t")
	values := []float32{0, -1.5, math.MaxFloat32, math.SmallestNonzeroFloat32}
	tensor, err := WriteF32(path, values, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tensor.Floats(); err != nil || !cmp.Equal(values, got) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := tensor.IDs(); err == nil {
		t.Error("values were read as ids")
	}
	ids := []int32{0, 49407}
	if tensor, err = WriteI64(path, ids, 1, 2); err != nil {
		t.Fatal(err)
	}
	if got, err := tensor.IDs(); err != nil || !cmp.Equal(ids, got) {
		t.Errorf("%v, %v", got, err)
	}
	if tensor, err = WriteI64(path, []int32{-1}, 1, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := tensor.IDs(); err == nil {
		t.Error("a negative id was read")
	}
}
