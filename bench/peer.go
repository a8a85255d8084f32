package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The longest a peer may take: to import its modules on a cold and busy machine, and for one operation.
const (
	startLimit = 5 * time.Minute
	workLimit  = 3 * time.Minute
)

// peer is the other side: peer.py in a child process, driven by JSON lines.
type peer struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr tail
	cancel context.CancelFunc
	waited sync.Once
}

// hello is the first answer of a peer.
type hello struct {
	Error    string            `json:"error,omitempty"`
	Versions map[string]string `json:"versions,omitempty"`
	Threads  int               `json:"threads,omitempty"`
	Layouts  map[string]string `json:"layouts,omitempty"` // of the tensors of each network: the faster one
}

// question is a task on the wire; values are little-endian.
type question struct {
	Op            operation `json:"op"`
	Prompts       []string  `json:"prompts"`
	Steps         int       `json:"steps"`
	GuidanceScale float64   `json:"guidance_scale"`
	Height        int       `json:"height"`
	Width         int       `json:"width"`
	Seed          uint64    `json:"seed"`
	Values        []byte    `json:"values"`
	Shape         []int     `json:"shape"`
}

// reply is an outcome on the wire.
type reply struct {
	Error   string             `json:"error"`
	Seconds map[string]float64 `json:"seconds"`
	Values  []byte             `json:"values"`
	File    []byte             `json:"file"`
}

var errNoPeer = errors.New("none was asked for: -python is empty, `make bench-env` makes one")

// startPeer starts the child and waits until it has loaded the model. The peer is nil if it did not.
func startPeer(ctx context.Context, o options) (*peer, hello, error) {
	if o.python == "" {
		return nil, hello{}, errNoPeer
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &peer{cancel: cancel, cmd: exec.CommandContext(ctx, o.python, o.script, o.model, strconv.Itoa(o.threads))}
	p.cmd.Stderr = &p.stderr
	p.cmd.Env = append(p.cmd.Environ(), "OMP_NUM_THREADS="+strconv.Itoa(o.threads))
	in, err := p.cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, hello{}, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, hello{}, err
	}
	p.in, p.out = in, bufio.NewReaderSize(out, 1<<20)
	if err := p.cmd.Start(); err != nil {
		cancel()
		return nil, hello{}, err
	}
	var first hello
	err = p.read(startLimit, &first)
	if err == nil && first.Error != "" {
		err = errors.New(first.Error)
	}
	if err != nil {
		p.close()
		return nil, hello{}, err
	}
	return p, first, nil
}

// do implements side.
func (p *peer) do(_ context.Context, t task) (outcome, error) {
	q := question{
		Op: t.op, Prompts: []string{negativePrompt, prompt}, Steps: steps, GuidanceScale: guidanceScale,
		Height: latentSide, Width: latentSide, Seed: seed, Values: toBytes(t.values), Shape: t.shape,
	}
	line, err := json.Marshal(q)
	if err != nil {
		return outcome{}, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return outcome{}, fmt.Errorf("%s: %w", t.op, err)
	}
	var r reply
	if err := p.read(workLimit, &r); err != nil {
		return outcome{}, fmt.Errorf("%s: %w", t.op, err)
	}
	if r.Error != "" {
		return outcome{}, fmt.Errorf("%s: %s", t.op, r.Error)
	}
	return outcome{seconds: r.Seconds, values: toFloats(r.Values), file: r.File}, nil
}

// read waits for a line of the child; past the limit the child is ended.
func (p *peer) read(limit time.Duration, v any) error {
	timer := time.AfterFunc(limit, p.cancel)
	line, err := p.out.ReadBytes('\n')
	if !timer.Stop() {
		return fmt.Errorf("no answer within %v", limit)
	}
	if err != nil {
		p.close()
		return fmt.Errorf("the child ended (%v): %s", p.cmd.ProcessState, p.stderr.String())
	}
	return json.Unmarshal(line, v)
}

// pid is the child's process.
func (p *peer) pid() int { return p.cmd.Process.Pid }

// close ends the child and waits for it. Idempotent.
func (p *peer) close() {
	p.waited.Do(func() {
		_ = p.in.Close() // the child ends at the end of its input
		timer := time.AfterFunc(5*time.Second, p.cancel)
		_ = p.cmd.Wait() // how it ended is in its state
		timer.Stop()
		p.cancel()
	})
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	last []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, b...)
	t.last = t.last[max(0, len(t.last)-4096):]
	return len(b), nil
}

// String is the last line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(string(bytes.TrimSpace(t.last)), "\n")
	return lines[len(lines)-1]
}

// toBytes and toFloats convert between values and the wire, where encoding/json adds base64.
func toBytes(v []float32) []byte {
	out := make([]byte, 0, 4*len(v))
	for _, x := range v {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}

func toFloats(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}
