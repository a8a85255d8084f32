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

// Main is the child: it loads a network of a model, or the stages, and answers until the end of in. What keeps it from
// loading is told as the protocol has it.
func Main(ctx context.Context, model, name string, threads int, in io.Reader, out io.Writer) error {
	start := time.Now()
	engine, closeEngine, err := open(ctx, model, name, threads)
	if err != nil {
		return errors.Join(err, json.NewEncoder(out).Encode(peer.Hello{Error: err.Error()}))
	}
	hello := peer.Hello{
		Engine: Name, Threads: threads, LoadSeconds: time.Since(start).Seconds(), Versions: map[string]string{"go": runtime.Version()},
		Notes: map[string]any{"kernel": kernel.Variant()},
	}
	return errors.Join(peer.Serve(ctx, in, out, hello, engine), closeEngine())
}

func open(ctx context.Context, model, name string, threads int) (peer.Engine, func() error, error) {
	if name == peer.Image {
		s, err := openStages(ctx, model, threads)
		if err != nil {
			return nil, nil, err
		}
		return s, s.close, nil
	}
	n, err := openNetwork(ctx, model, name, threads)
	if err != nil {
		return nil, nil, err
	}
	return n, n.close, nil
}
