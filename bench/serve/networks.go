// Package serve is our side of the benchmark as a child process: a network of a model on the CPU device, or the three
// stages together, behind the protocol of bench/peer.
//
// The package may import bench/peer, the engine, stage and stage/stageengine.
package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// network is one loaded network, with a run for the shapes it was asked for last.
type network struct {
	device  *cpu.Device
	options device.RunOptions // with the stage's own limit of scratch
	net     *modeldir.Network
	weights device.Weights
	spec    spec

	shapes [][]int
	run    device.Run
	call   *call
}

// spec is what the networks differ in.
type spec struct {
	names []string // of the inputs
	// prepare reads the inputs and records the tape for them.
	prepare func(inputs []peer.Tensor) (*call, *device.Tape, error)
}

// call is one computation: how the inputs get in, and where the output is to go.
type call struct {
	write  func(device.Run) error
	output string
	shape  []int     // of the output, as the protocol has it
	last   []float32 // the output as the device has it
	values []float32 // the output in the protocol's order
	pixels int       // to transpose to channels first; 0 for an output without channels
}

// openNetwork loads a network of a model. What follows is counted as loading: from the files to packed weights.
func openNetwork(ctx context.Context, model, name string, threads int) (*network, error) {
	n := &network{}
	if name == peer.Upscaler {
		if err := n.openUpscaler(model); err != nil {
			return nil, err
		}
		return n, n.load(ctx, threads)
	}
	dir, err := modeldir.OpenStableDiffusion(model)
	if err != nil {
		return nil, err
	}
	switch name {
	case peer.TextEncoder:
		e, err := dir.TextEncoder()
		if err != nil {
			return nil, err
		}
		n.net, n.spec = &e.Network, textEncoder(e)
	case peer.UNet:
		u, err := dir.Denoiser()
		if err != nil {
			return nil, err
		}
		n.net, n.spec = &u.Network, denoiser(u)
	case peer.VAEDecoder:
		v, err := dir.ImageDecoder()
		if err != nil {
			return nil, err
		}
		n.net, n.spec = &v.Network, imageDecoder(v)
	default:
		return nil, fmt.Errorf("no network %q: expected %s, %s, %s, %s or %s", name, peer.TextEncoder, peer.UNet, peer.VAEDecoder, peer.Upscaler, peer.Image)
	}
	if name == peer.VAEDecoder {
		n.options.ScratchLimit = stageengine.MaxImageScratch
	}
	return n, n.load(ctx, threads)
}

// load loads the weights and closes their files.
func (n *network) load(ctx context.Context, threads int) (err error) {
	if n.device, err = cpu.New(cpu.Options{Threads: threads}); err != nil {
		return errors.Join(err, n.net.Close())
	}
	if n.weights, err = n.device.Load(ctx, n.net.Manifest(), device.LoadPlan{}, n.net.Source(), nil); err != nil {
		return errors.Join(err, n.net.Close(), n.device.Close())
	}
	return n.net.Close()
}

// openUpscaler opens the network of an upscaler, which has a folder of its own.
func (n *network) openUpscaler(model string) error {
	dir, err := modeldir.Open(model, modeldir.ClassUpscaler)
	if err != nil {
		return err
	}
	u, err := dir.Upscaler(modeldir.Options{})
	if err != nil {
		return err
	}
	n.net, n.spec, n.options.ScratchLimit = &u.Network, upscaler(u), stageengine.MaxImageScratch
	return nil
}

func (n *network) close() error {
	if n.run != nil {
		n.run.Free()
	}
	n.weights.Free()
	return n.device.Close()
}

// Prepare implements peer.Engine.
func (n *network) Prepare(inputs map[string]peer.Tensor) error {
	var list []peer.Tensor
	var shapes [][]int
	for _, name := range n.spec.names {
		t, ok := inputs[name]
		if !ok {
			return fmt.Errorf("no input %q: expected %v", name, n.spec.names)
		}
		list, shapes = append(list, t), append(shapes, t.Shape)
	}
	c, tape, err := n.spec.prepare(list)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(shapes, n.shapes, slices.Equal) {
		if n.run != nil {
			n.run.Free()
			n.run, n.shapes = nil, nil
		}
		if n.run, err = n.device.NewRun(tape, n.weights, n.options); err != nil {
			return err
		}
		n.shapes = shapes
	}
	n.call = c
	return nil
}

// Run implements peer.Engine: from tensors in the order of the protocol to one in it, so that the turning round of
// channels counts.
func (n *network) Run(ctx context.Context) error {
	c := n.call
	if err := c.write(n.run); err != nil {
		return err
	}
	if err := n.run.Execute(ctx); err != nil {
		return err
	}
	if err := n.run.Read(c.output, c.last); err != nil {
		return err
	}
	if c.pixels > 0 {
		nn.ToChannelsFirst(c.values, c.last, c.shape[0], c.shape[1], c.pixels)
	}
	return nil
}

// Output implements peer.Engine.
func (n *network) Output() ([]float32, []int) { return n.call.values, n.call.shape }

// Draw implements peer.Engine.
func (n *network) Draw(context.Context, peer.ImageRequest) ([]byte, time.Duration, error) {
	return nil, 0, fmt.Errorf("one network cannot draw: start it with %s", peer.Image)
}

func textEncoder(e *modeldir.TextEncoder) spec {
	return spec{[]string{peer.InputIDs}, func(in []peer.Tensor) (*call, *device.Tape, error) {
		s := in[0].Shape
		if len(s) != 2 {
			return nil, nil, fmt.Errorf("%s has shape %v, want [batch, tokens]", peer.InputIDs, s)
		}
		ids, err := in[0].IDs()
		if err != nil {
			return nil, nil, err
		}
		tape, err := e.Tape(s[0], s[1])
		c := &call{output: modeldir.OutputStates, shape: []int{s[0], s[1], e.Config.HiddenSize}}
		c.last = make([]float32, s[0]*s[1]*e.Config.HiddenSize)
		c.values = c.last
		c.write = func(r device.Run) error { return r.WriteIDs(modeldir.InputIDs, ids) }
		return c, tape, err
	}}
}

func denoiser(u *modeldir.Denoiser) spec {
	return spec{[]string{peer.InputSample, peer.InputTimestep, peer.InputStates}, func(in []peer.Tensor) (*call, *device.Tape, error) {
		s, states := in[0].Shape, in[2].Shape
		if len(s) != 4 || len(states) != 3 {
			return nil, nil, fmt.Errorf("sample %v and states %v, want [batch, channels, h, w] and [batch, tokens, width]", s, states)
		}
		sample, err := in[0].Floats()
		if err != nil {
			return nil, nil, err
		}
		timestep, err := in[1].Floats()
		if err != nil {
			return nil, nil, err
		}
		if len(timestep) != 1 {
			return nil, nil, fmt.Errorf("%s has %d values, want 1", peer.InputTimestep, len(timestep))
		}
		context, err := in[2].Floats()
		if err != nil {
			return nil, nil, err
		}
		tape, err := u.Tape(s[0], s[2], s[3], states[1])
		c := channelsLast(modeldir.OutputPrediction, s[0], u.Config.OutChannels, s[2], s[3])
		latents := make([]float32, len(sample))
		c.write = func(r device.Run) error {
			nn.ToChannelsLast(latents, sample, s[0], s[1], s[2]*s[3])
			return errors.Join(
				r.Write(modeldir.InputLatents, latents),
				r.Write(modeldir.InputTime, u.Config.TimeInput(float64(timestep[0]))),
				r.Write(modeldir.InputContext, context))
		}
		return c, tape, err
	}}
}

func imageDecoder(v *modeldir.ImageDecoder) spec {
	return spec{[]string{peer.InputLatents}, func(in []peer.Tensor) (*call, *device.Tape, error) {
		s := in[0].Shape
		if len(s) != 4 {
			return nil, nil, fmt.Errorf("%s has shape %v, want [batch, channels, h, w]", peer.InputLatents, s)
		}
		values, err := in[0].Floats()
		if err != nil {
			return nil, nil, err
		}
		tape, err := v.Tape(s[0], s[2], s[3])
		f := v.Config.Factor()
		c := channelsLast(modeldir.OutputImage, s[0], 3, f*s[2], f*s[3])
		latents := make([]float32, len(values))
		c.write = func(r device.Run) error {
			nn.ToChannelsLast(latents, values, s[0], s[1], s[2]*s[3])
			return r.Write(modeldir.InputLatents, latents)
		}
		return c, tape, err
	}}
}

func upscaler(u *modeldir.Upscaler) spec {
	return spec{[]string{peer.InputImage}, func(in []peer.Tensor) (*call, *device.Tape, error) {
		s := in[0].Shape
		if len(s) != 4 || s[0] != 1 || s[1] != 3 {
			return nil, nil, fmt.Errorf("%s has shape %v, want [1, 3, h, w]", peer.InputImage, s)
		}
		values, err := in[0].Floats()
		if err != nil {
			return nil, nil, err
		}
		tape, err := u.Tape(s[2], s[3])
		scale := u.Config.Scale()
		c := channelsLast(modeldir.OutputImage, 1, 3, scale*s[2], scale*s[3])
		pixels := make([]float32, len(values))
		c.write = func(r device.Run) error {
			nn.ToChannelsLast(pixels, values, 1, 3, s[2]*s[3])
			return r.Write(modeldir.InputImage, u.Config.Input(pixels, s[2], s[3]))
		}
		return c, tape, err
	}}
}

// channelsLast is a call whose output is an image on the device.
func channelsLast(output string, shape ...int) *call {
	n := shape[0] * shape[1] * shape[2] * shape[3]
	return &call{output: output, shape: shape, pixels: shape[2] * shape[3], last: make([]float32, n), values: make([]float32, n)}
}
