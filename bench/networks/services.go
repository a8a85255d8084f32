package networks

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/peer"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// ServicesName is the row's side that goes through the orchestrator and the three services.
const ServicesName = "triptych up"

// Services is that side, for images: what its time is above that of our child, which calls the same stages in one
// process, is what splitting costs. program is the triptych binary.
func Services(program string) Engine {
	return Engine{Name: ServicesName, Needs: 1 << 28, Start: func(ctx context.Context, w Work, threads int) (side, peer.Hello, error) {
		s, err := up(ctx, program, w, threads)
		if err != nil {
			return nil, peer.Hello{}, err
		}
		return s, peer.Hello{Engine: "triptych", Threads: threads, Notes: map[string]any{"processes": "orchestrator, three services and their runtimes"}}, nil
	}}
}

// services are a running `triptych up`.
type services struct {
	cmd    *exec.Cmd
	conn   *grpc.ClientConn
	model  string
	cancel context.CancelFunc
	log    bytes.Buffer
}

var addressLine = regexp.MustCompile(`^orchestrator\s+(\S+:\d+)$`)

// up starts everything and waits until it serves.
func up(ctx context.Context, program string, w Work, threads int) (*services, error) {
	if w.Network != peer.Image {
		return nil, errors.New("the services make images")
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &services{model: filepath.Base(w.Model.Path), cancel: cancel}
	s.cmd = exec.CommandContext(ctx, program, "up", "--listen", "127.0.0.1:0", "--threads", strconv.Itoa(threads), "--models", w.Model.Path, "--log-level", "error")
	s.cmd.Stderr = &s.log
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) } // it ends its children
	s.cmd.WaitDelay = time.Minute
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	address := ""
	for lines := bufio.NewScanner(out); address == "" && lines.Scan(); {
		if m := addressLine.FindStringSubmatch(lines.Text()); m != nil {
			address = m[1]
		}
	}
	if address == "" {
		cancel()
		return nil, errors.Join(fmt.Errorf("triptych up ended before it served"), s.cmd.Wait())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if s.conn, err = grpc.NewClient(address, append(stagerpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...); err != nil {
		cancel()
		return nil, errors.Join(err, s.cmd.Wait())
	}
	return s, nil
}

// do implements side: from the call to its last event, the image among them.
func (s *services) do(r peer.Request) (float64, result, peer.Hello, error) {
	if r.ImageRequest == nil {
		return 0, result{}, peer.Hello{}, errors.New("the services make images")
	}
	q := *r.ImageRequest
	width, height, steps, guidance := int32(q.Width), int32(q.Height), int32(q.Steps), float32(q.GuidanceScale)
	start := time.Now()
	stream, err := triptychv1alpha1.NewGenerationServiceClient(s.conn).Generate(context.Background(), &triptychv1alpha1.GenerateRequest{Spec: &triptychv1alpha1.GenerationSpec{
		Model: s.model, Prompt: q.Prompt, NegativePrompt: q.NegativePrompt, WidthPx: &width, HeightPx: &height, Steps: &steps, GuidanceScale: &guidance,
		Seed: &q.Seed, Sampler: "ddim", Output: &triptychv1alpha1.OutputOptions{Format: "png", OmitMetadata: true},
	}})
	var file []byte
	for err == nil {
		var event *triptychv1alpha1.GenerateResponse
		if event, err = stream.Recv(); err == nil {
			file = append(append(file, event.GetImageReady().GetData()...), event.GetImageChunk().GetData()...)
		}
	}
	if !errors.Is(err, io.EOF) {
		return 0, result{}, peer.Hello{}, err
	}
	return time.Since(start).Seconds(), result{png: file}, peer.Hello{}, nil
}

// peak implements side: the sum over all processes, which have ledgers of their own.
func (s *services) peak() (rss, ledger int64, err error) {
	rss, err = familyRSS("/proc", s.cmd.Process.Pid)
	return rss, 0, err
}

// familyRSS sums the peaks of a process and of those below it, as a proc file system tells them.
func familyRSS(proc string, root int) (int64, error) {
	stats, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	if err != nil {
		return 0, err
	}
	parents := map[int]int{}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:])) // state, parent
		if len(fields) < 2 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parents[pid], _ = strconv.Atoi(fields[1])
	}
	sum := int64(0)
	for pid := range parents {
		for p := pid; p > 1; p = parents[p] {
			if p == root {
				kib, _ := strconv.ParseInt(strings.TrimSuffix(limits.Field(filepath.Join(proc, strconv.Itoa(pid), "status"), "VmHWM"), " kB"), 10, 64)
				sum += kib << 10
				break
			}
		}
	}
	return sum, nil
}

// close implements side.
func (s *services) close() {
	_ = s.conn.Close()
	s.cancel()
	_ = s.cmd.Wait() // how it ended is not measured
}
