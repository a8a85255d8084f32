package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/bench/models"
	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/lora"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// network is one loaded network, with a run for the shapes it was asked for last.
type network struct {
	device  *cpu.Device
	options device.RunOptions // with the stage's own limit of scratch
	net     *modeldir.Network
	weights device.Weights
	lora    *modeldir.LoRA   // nil without one
	further []device.Weights // its
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

// openNetwork loads a network of a model, and a LoRA for it if its file is named. What follows is counted as loading: from the
// files to packed weights.
func openNetwork(ctx context.Context, o Options) (*network, error) {
	m, err := models.Open(o.Model)
	if err != nil {
		return nil, err
	}
	if err := m.Check(o.Network); err != nil {
		return nil, err
	}
	if o.LoRA != "" && o.Network != peer.UNet {
		return nil, fmt.Errorf("a LoRA for %s: expected one for %s", o.Network, peer.UNet)
	}
	n := &network{}
	switch o.Network {
	case peer.TextEncoder, peer.TextEncoder2:
		e, err := m.Text(o.Network)
		if err != nil {
			return nil, err
		}
		n.net, n.spec = &e.Network, textEncoder(e)
	case peer.UNet:
		u, err := m.Denoiser()
		if err != nil {
			return nil, err
		}
		var adapted []modeldir.Adapted
		if o.LoRA != "" {
			if adapted, err = n.openLoRA(o.LoRA, u); err != nil {
				return nil, errors.Join(err, u.Close())
			}
		}
		n.net, n.spec = &u.Network, denoiser(u, adapted)
	case peer.VAEDecoder:
		v, err := m.ImageDecoder()
		if err != nil {
			return nil, err
		}
		n.net, n.spec, n.options.ScratchLimit = &v.Network, imageDecoder(v), stageengine.MaxImageScratch
	case peer.Upscaler:
		u, err := m.Upscaler()
		if err != nil {
			return nil, err
		}
		n.net, n.spec, n.options.ScratchLimit = &u.Network, upscaler(u), stageengine.MaxImageScratch
	}
	return n, n.load(ctx, o.Threads)
}

// openLoRA opens a LoRA and fits it on the U-Net.
func (n *network) openLoRA(file string, u *modeldir.Denoiser) ([]modeldir.Adapted, error) {
	dir, err := modeldir.Open(file, modeldir.ClassLoRA)
	if err != nil {
		return nil, err
	}
	if n.lora, err = dir.LoRA(lora.UNet, modeldir.Options{}); err != nil {
		return nil, err
	}
	adapted, err := u.Adapt(n.lora)
	if err != nil {
		return nil, errors.Join(err, n.lora.Close())
	}
	return []modeldir.Adapted{adapted}, nil
}

// load loads the weights and closes their files.
func (n *network) load(ctx context.Context, threads int) error {
	files := []*modeldir.Network{n.net}
	if n.lora != nil {
		files = append(files, &n.lora.Network)
	}
	var loaded []device.Weights
	var err error
	if n.device, err = cpu.New(cpu.Options{Threads: threads}); err == nil {
		for _, f := range files {
			var w device.Weights
			if w, err = n.device.Load(ctx, f.Manifest(), device.LoadPlan{}, f.Source(), nil); err != nil {
				err = errors.Join(err, n.device.Close())
				break
			}
			loaded = append(loaded, w)
		}
	}
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return err
	}
	n.weights, n.further = loaded[0], loaded[1:]
	return nil
}

func (n *network) close() error {
	if n.run != nil {
		n.run.Free()
	}
	for _, w := range append(n.further, n.weights) {
		w.Free()
	}
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
		if n.run, err = n.device.NewRun(tape, n.weights, n.options, n.further...); err != nil {
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
	return c.read(n.run)
}

// Output implements peer.Engine.
func (n *network) Output() ([]float32, []int) { return n.call.values, n.call.shape }

// PeakLedger implements peer.Engine.
func (n *network) PeakLedger() int64 { return n.device.Memory().PeakBytes }

// Draw implements peer.Engine.
func (n *network) Draw(context.Context, peer.ImageRequest) ([]byte, time.Duration, error) {
	return nil, 0, fmt.Errorf("one network cannot draw: start it with %s", peer.Image)
}
