// Package serve is our side of the benchmark as a child process: a network of a model on the CPU device, or the three
// stages together, behind the protocol of bench/peer.
//
// The package may import bench/models, bench/peer, the engine, stage and stage/stageengine.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"time"

	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// Name is what our side is called among the engines.
const Name = "triptych"

// Options are what is loaded.
type Options struct {
	Model, Network string
	Threads        int
	LoRA           string // a file with a LoRA for the U-Net; empty without one
}

// Main is the child: it loads a network of a model, or the stages, and answers until the end of in. What keeps it from
// loading is told as the protocol has it.
func Main(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
	start := time.Now()
	engine, closeEngine, err := open(ctx, o)
	if err != nil {
		return errors.Join(err, json.NewEncoder(out).Encode(peer.Hello{Error: err.Error()}))
	}
	hello := peer.Hello{
		Engine: Name, Threads: o.Threads, LoadSeconds: time.Since(start).Seconds(), Versions: map[string]string{"go": runtime.Version()},
		Notes: map[string]any{"kernel": kernel.Variant()},
	}
	return errors.Join(peer.Serve(ctx, in, out, hello, engine), closeEngine())
}

func open(ctx context.Context, o Options) (peer.Engine, func() error, error) {
	if o.Network == peer.Image {
		s, err := openStages(ctx, o.Model, o.Threads)
		if err != nil {
			return nil, nil, err
		}
		return s, s.close, nil
	}
	n, err := openNetwork(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	return n, n.close, nil
}
