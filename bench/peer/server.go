package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/bench/limits"
)

// Engine is what a child does.
type Engine interface {
	// Prepare reads the inputs from their files, and allocates for their shapes; its time does not count.
	Prepare(inputs map[string]Tensor) error
	// Run computes; its time is told.
	Run(ctx context.Context) error
	// Output is the result of the last Run.
	Output() (values []float32, shape []int)
	// Draw makes an image, and tells how long that took.
	Draw(ctx context.Context, r ImageRequest) (png []byte, took time.Duration, err error)
	// PeakLedger is the most bytes that its device ever gave out.
	PeakLedger() int64
}

// Serve answers requests until the end of in.
func Serve(ctx context.Context, in io.Reader, out io.Writer, hello Hello, e Engine) error {
	send := json.NewEncoder(out)
	if err := send.Encode(hello); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Request
		err := json.Unmarshal(lines.Bytes(), &r)
		var reply Reply
		if err == nil {
			reply, err = answer(ctx, e, r)
		}
		if err != nil {
			reply = Reply{Error: err.Error()}
		}
		if err := send.Encode(reply); err != nil {
			return err
		}
	}
	return lines.Err()
}

func answer(ctx context.Context, e Engine, r Request) (Reply, error) {
	switch r.Op {
	case "run":
		return run(ctx, e, r.Inputs)
	case "image":
		return draw(ctx, e, r.ImageRequest)
	case "rss":
		return Reply{PeakRSS: PeakRSS(), PeakLedger: e.PeakLedger()}, nil
	case "reset_rss":
		return Reply{}, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	}
	return Reply{}, fmt.Errorf("no op %q: expected run, image, rss or reset_rss", r.Op)
}

func run(ctx context.Context, e Engine, inputs map[string]Tensor) (Reply, error) {
	if len(inputs) == 0 {
		return Reply{}, errors.New("run without inputs")
	}
	if err := e.Prepare(inputs); err != nil {
		return Reply{}, err
	}
	start := time.Now()
	if err := e.Run(ctx); err != nil {
		return Reply{}, err
	}
	took := time.Since(start).Seconds()
	values, shape := e.Output()
	dir := ""
	for _, t := range inputs {
		dir = filepath.Dir(t.File)
	}
	out, err := WriteF32(beside(dir, "f32"), values, shape...)
	return Reply{Seconds: took, Output: &out}, err
}

func draw(ctx context.Context, e Engine, r *ImageRequest) (Reply, error) {
	if r == nil {
		return Reply{}, errors.New("image without a request")
	}
	file, took, err := e.Draw(ctx, *r)
	if err != nil {
		return Reply{}, err
	}
	path := beside(os.TempDir(), "png")
	return Reply{Seconds: took.Seconds(), Output: &Tensor{File: path}}, os.WriteFile(path, file, 0o600)
}

// beside is the file for this process's results, the same every time.
func beside(dir, extension string) string {
	return filepath.Join(dir, fmt.Sprintf("triptych-bench-%d.%s", os.Getpid(), extension))
}

// PeakRSS is the most memory this process ever had in RAM, in bytes; 0 if the system does not tell.
func PeakRSS() int64 {
	kib, _ := strconv.ParseInt(strings.TrimSuffix(limits.Field("/proc/self/status", "VmHWM"), " kB"), 10, 64)
	return kib << 10
}
