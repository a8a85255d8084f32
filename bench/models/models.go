// Package models opens the models that are measured, by the networks that bench/peer has names for.
//
// The package may import bench/peer and the engine.
package models

import (
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/model/vae"
)

// classXL is that of the pipeline of Stable Diffusion XL.
const classXL = "StableDiffusionXLPipeline"

// Model is a model of Stable Diffusion 1, 2 or XL, or an upscaler, which has none of the configs.
type Model struct {
	dir   *modeldir.Dir
	Texts []clip.Config // of XL two
	UNet  unet.Config
	VAE   vae.Config
}

// Open opens a directory.
func Open(path string) (*Model, error) {
	dir, err := modeldir.Open(path, append(modeldir.ClassesStableDiffusion(), classXL, modeldir.ClassUpscaler)...)
	if err != nil {
		return nil, err
	}
	m := &Model{dir: dir}
	if dir.Class() == modeldir.ClassUpscaler {
		return m, nil
	}
	texts := []string{peer.TextEncoder}
	if m.xl() {
		texts = append(texts, peer.TextEncoder2)
	}
	for _, name := range texts {
		c, err := modeldir.Config(dir, Folder(name), clip.ParseConfig)
		if err != nil {
			return nil, err
		}
		m.Texts = append(m.Texts, c)
	}
	if m.UNet, err = modeldir.Config(dir, modeldir.UNetFolder, unet.ParseConfig); err != nil {
		return nil, err
	}
	m.VAE, err = modeldir.Config(dir, modeldir.VAEFolder, vae.ParseConfig)
	return m, err
}

func (m *Model) xl() bool { return m.dir.Class() == classXL }

// Networks are those of the model.
func (m *Model) Networks() []string {
	switch {
	case m.dir.Class() == modeldir.ClassUpscaler:
		return []string{peer.Upscaler}
	case m.xl():
		return []string{peer.TextEncoder, peer.TextEncoder2, peer.UNet, peer.VAEDecoder}
	}
	return []string{peer.TextEncoder, peer.UNet, peer.VAEDecoder}
}

// Folder is where a directory has a network.
func Folder(network string) string {
	switch network {
	case peer.VAEDecoder:
		return modeldir.VAEFolder
	case peer.Upscaler:
		return ""
	}
	return network
}

// Text is a text encoder.
type Text struct {
	*modeldir.TextEncoder
	Projects bool // it gives modeldir.OutputPooled too
	depth    modeldir.Depth
}

// Text opens a text encoder: peer.TextEncoder, or peer.TextEncoder2 of XL.
func (m *Model) Text(network string) (*Text, error) {
	t, place, projection := &Text{depth: modeldir.Depth{Normed: true}}, 0, 0
	if m.xl() {
		t.depth = modeldir.Depth{Skipped: 1}
	}
	if network == peer.TextEncoder2 {
		place, projection, t.Projects = 1, m.Texts[1].Projection, true
	}
	var err error
	t.TextEncoder, err = m.dir.TextEncoder(Folder(network), m.Texts[place], projection, modeldir.Options{})
	return t, err
}

// Tape gives the states that the model's denoiser is conditioned on: those behind the last layer and the final norm, of XL behind the
// last layer but one.
func (t *Text) Tape(batch, tokens int) (*device.Tape, error) {
	return t.TapeWith(batch, tokens, t.depth, 0)
}

// Denoiser opens the U-Net.
func (m *Model) Denoiser() (*modeldir.Denoiser, error) {
	return m.dir.Denoiser(modeldir.UNetFolder, m.UNet, modeldir.Options{})
}

// ImageDecoder opens the autoencoder's half from latents to images.
func (m *Model) ImageDecoder() (*modeldir.ImageDecoder, error) {
	return m.dir.ImageDecoder(modeldir.VAEFolder, m.VAE, modeldir.Options{})
}

// Upscaler opens the network of an upscaler.
func (m *Model) Upscaler() (*modeldir.Upscaler, error) {
	return m.dir.Upscaler(modeldir.Options{})
}

// Network is a network, with the tape of a run at a size: the side of its latents or, of an upscaler, of its image.
type Network struct {
	*modeldir.Network
	Tape func(batch, side, tokens int) (*device.Tape, error)
}

// Check is an error unless the model has a network.
func (m *Model) Check(network string) error {
	if names := m.Networks(); !slices.Contains(names, network) {
		return fmt.Errorf("no network %q in a %s: expected one of %v", network, m.dir.Class(), names)
	}
	return nil
}

// Network opens a network by its name in peer.
func (m *Model) Network(name string) (n Network, err error) {
	if err := m.Check(name); err != nil {
		return n, err
	}
	switch name {
	case peer.TextEncoder, peer.TextEncoder2:
		t, err := m.Text(name)
		if err != nil {
			return n, err
		}
		return Network{&t.Network, func(batch, _, tokens int) (*device.Tape, error) { return t.Tape(batch, tokens) }}, nil
	case peer.UNet:
		u, err := m.Denoiser()
		if err != nil {
			return n, err
		}
		return Network{&u.Network, func(batch, side, tokens int) (*device.Tape, error) { return u.Tape(batch, side, side, tokens) }}, nil
	case peer.VAEDecoder:
		v, err := m.ImageDecoder()
		if err != nil {
			return n, err
		}
		return Network{&v.Network, func(batch, side, _ int) (*device.Tape, error) { return v.Tape(batch, side, side) }}, nil
	}
	u, err := m.Upscaler()
	if err != nil {
		return n, err
	}
	return Network{&u.Network, func(_, side, _ int) (*device.Tape, error) { return u.Tape(side, side) }}, nil
}
