// Package networks times whole networks and images, ours beside those of other engines with the same weights, each in a
// process of its own, by turns.
//
// The package may import bench's other packages, the engine, and the public client of the wire.
package networks

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/triptych-serving/triptych/bench/kernels"
	"github.com/triptych-serving/triptych/bench/models"
	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
)

// Model is a model's name in the results and its folder.
type Model struct {
	Name, Path string
}

// Work is one row: a network of a model at a size, or an image.
type Work struct {
	Name    string
	Model   Model
	Network string
	Batch   int
	Side    int // of the latents
	Tokens  int
	Image   peer.ImageRequest
	// OneThread has us do it with one thread too.
	OneThread bool
	// LoRA is the rank of a LoRA for the U-Net, with which we do it beside ourselves without; 0 is none.
	LoRA int
}

// The image is that of run 0 of testdata/golden/starter.
func starterImage() peer.ImageRequest {
	return peer.ImageRequest{Prompt: "fox on a blue background", Steps: 20, GuidanceScale: 4, Height: 128, Width: 128, Seed: 42}
}

const tokens = 77

// Starter lists the work of the model in the repository.
func Starter(m Model) []Work {
	image := starterImage()
	return []Work{
		{Model: m, Network: peer.TextEncoder, Batch: 2, Tokens: tokens, Name: m.Name + " text encoder, 2 prompts"},
		{Model: m, Network: peer.UNet, Batch: 2, Side: 16, Tokens: tokens, OneThread: true, Name: m.Name + " U-Net step 16x16, batch 2"},
		{Model: m, Network: peer.VAEDecoder, Batch: 1, Side: 16, OneThread: true, Name: m.Name + " VAE decode to 128x128"},
		{Model: m, Network: peer.Image, Image: image, Name: fmt.Sprintf("%s image %dx%d, %d steps", m.Name, image.Width, image.Height, image.Steps)},
	}
}

// SD15 lists the work of a model of the size of Stable Diffusion 1.5.
func SD15(m Model) []Work {
	return []Work{
		{Model: m, Network: peer.TextEncoder, Batch: 2, Tokens: tokens, Name: m.Name + " text encoder, 2 prompts"},
		{Model: m, Network: peer.UNet, Batch: 1, Side: 64, Tokens: tokens, OneThread: true, Name: m.Name + " U-Net step 64x64, batch 1"},
		{Model: m, Network: peer.UNet, Batch: 2, Side: 64, Tokens: tokens, OneThread: true, Name: m.Name + " U-Net step 64x64, batch 2"},
		{Model: m, Network: peer.VAEDecoder, Batch: 1, Side: 64, OneThread: true, Name: m.Name + " VAE decode to 512x512"},
	}
}

// loraRank is that of a usual LoRA.
const loraRank = 32

// SDXL lists the work of a model of the size of Stable Diffusion XL.
func SDXL(m Model) []Work {
	step := func(side, rank int) Work {
		w := Work{Model: m, Network: peer.UNet, Batch: 2, Side: side, Tokens: tokens, LoRA: rank, Name: fmt.Sprintf("%s U-Net step %dx%d, batch 2", m.Name, side, side)}
		if rank > 0 {
			w.Name += fmt.Sprintf(", LoRA of rank %d", rank)
		}
		return w
	}
	return []Work{
		{Model: m, Network: peer.TextEncoder, Batch: 2, Tokens: tokens, Name: m.Name + " text encoder, 2 prompts"},
		{Model: m, Network: peer.TextEncoder2, Batch: 2, Tokens: tokens, Name: m.Name + " text encoder 2, 2 prompts"},
		step(64, 0), step(128, 0),
		{Model: m, Network: peer.VAEDecoder, Batch: 1, Side: 128, Name: m.Name + " VAE decode to 1024x1024"},
		step(64, loraRank), step(128, loraRank),
	}
}

// ESRGAN lists the work of an upscaler of the size of RealESRGAN_x4plus.
func ESRGAN(m Model) []Work {
	return []Work{
		{Model: m, Network: peer.Upscaler, Batch: 1, Side: 64, Name: m.Name + " x4 of 64x64"},
		{Model: m, Network: peer.Upscaler, Batch: 1, Side: 256, Name: m.Name + " x4 of 256x256"},
	}
}

// inputs writes the inputs of a network to files in dir: the same ones every time, normal values, ids of the vocabulary.
func (w Work) inputs(dir string, m *models.Model) (map[string]peer.Tensor, error) {
	random := rand.New(rand.NewPCG(uint64(w.Batch), 2)) //nolint:gosec // inputs are no secret and must be the same again
	values := func(name string, shape ...int) (peer.Tensor, error) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(random.NormFloat64())
		}
		return peer.WriteF32(filepath.Join(dir, name), v, shape...)
	}
	out := map[string]peer.Tensor{}
	var err error
	add := func(name string, t peer.Tensor, e error) {
		out[name] = t
		if err == nil {
			err = e
		}
	}
	switch w.Network {
	case peer.TextEncoder, peer.TextEncoder2:
		ids := make([]int32, w.Batch*w.Tokens)
		for i := range ids {
			ids[i] = int32(random.IntN(m.Texts[0].VocabSize))
		}
		t, e := peer.WriteI64(filepath.Join(dir, peer.InputIDs), ids, w.Batch, w.Tokens)
		add(peer.InputIDs, t, e)
	case peer.UNet:
		t, e := values(peer.InputSample, w.Batch, m.UNet.InChannels, w.Side, w.Side)
		add(peer.InputSample, t, e)
		t, e = peer.WriteF32(filepath.Join(dir, peer.InputTimestep), []float32{500}, 1)
		add(peer.InputTimestep, t, e)
		t, e = values(peer.InputStates, w.Batch, w.Tokens, m.UNet.ContextDim)
		add(peer.InputStates, t, e)
		if c := m.UNet; c.AdditionDim > 0 {
			t, e = values(peer.InputPooled, w.Batch, c.AdditionDim-unet.AdditionTimes*c.AdditionTimeDim)
			add(peer.InputPooled, t, e)
			pixels := float32(m.VAE.Factor() * w.Side)
			sizes := slices.Repeat([]float32{pixels, pixels, 0, 0, pixels, pixels}, w.Batch)
			t, e = peer.WriteF32(filepath.Join(dir, peer.InputTimeIDs), sizes, w.Batch, unet.AdditionTimes)
			add(peer.InputTimeIDs, t, e)
		}
	case peer.Upscaler:
		t, e := values(peer.InputImage, w.Batch, vae.ImageChannels, w.Side, w.Side)
		add(peer.InputImage, t, e)
	case peer.VAEDecoder:
		t, e := values(peer.InputLatents, w.Batch, m.VAE.LatentChannels, w.Side, w.Side)
		add(peer.InputLatents, t, e)
	}
	return out, err
}

// request is what every side is asked to do.
func (w Work) request(inputs map[string]peer.Tensor) peer.Request {
	if w.Network == peer.Image {
		image := w.Image
		return peer.Request{Op: "image", ImageRequest: &image}
	}
	return peer.Request{Op: "run", Inputs: inputs}
}

// turn is the request of a repetition. Images get another prompt each time, so that nobody can keep the states of one.
func turn(r peer.Request, rep int) peer.Request {
	if r.ImageRequest == nil {
		return r
	}
	subjects := []string{"owl", "whale", "robot", "tulip", "castle", "bee", "pizza", "rocket", "crab", "lion", "key", "turtle", "moon"}
	image := *r.ImageRequest
	image.Prompt = subjects[rep%len(subjects)] + " on a blue background"
	r.ImageRequest = &image
	return r
}

// size is what a network takes: floating point operations of products, convolutions and attentions at this size, and
// the bytes of the weights in the files. Of an image they are those of its three networks.
func (w Work) size(m *models.Model) (flops float64, stored int64, err error) {
	add := func(times int, network string, batch, side int) {
		if err != nil {
			return
		}
		n, e := m.Network(network)
		if err = e; err != nil {
			return
		}
		defer n.Close() //nolint:errcheck // only its header was read
		tape, e := n.Tape(batch, side, tokens)
		if err = e; err != nil {
			return
		}
		flops += float64(times) * kernels.Flops(tape)
		stored += n.StoredBytes()
	}
	if w.Network != peer.Image {
		add(1, w.Network, w.Batch, w.Side)
		return flops, stored, err
	}
	side := w.Image.Height / m.VAE.Factor()
	add(1, peer.TextEncoder, 2, side)
	add(w.Image.Steps, peer.UNet, 2, side)
	add(1, peer.VAEDecoder, 1, side)
	return flops, stored, err
}
