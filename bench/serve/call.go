package serve

import (
	"errors"
	"fmt"
	"slices"

	"github.com/triptych-serving/triptych/bench/models"
	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
)

// call is one computation: how the inputs get in, and how the output gets out.
type call struct {
	write, read func(device.Run) error
	shape       []int     // of the output, as the protocol has it
	values      []float32 // the output in the protocol's order
}

// textEncoder gives states, and behind them the pooled state of an encoder that has one.
func textEncoder(e *models.Text) spec {
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
		batch, states, width := s[0], s[1]*e.Config.HiddenSize, 0
		c := &call{shape: []int{batch, s[1], e.Config.HiddenSize}, write: func(r device.Run) error { return r.WriteIDs(modeldir.InputIDs, ids) }}
		if e.Projects {
			width = e.Config.Projection
			c.shape = []int{batch, states + width}
		}
		last, pooled := make([]float32, batch*states), make([]float32, batch*s[1]*width)
		c.values = last
		c.read = func(r device.Run) error { return r.Read(modeldir.OutputStates, last) }
		if e.Projects {
			c.values = make([]float32, batch*(states+width))
			c.read = func(r device.Run) error {
				if err := errors.Join(r.Read(modeldir.OutputStates, last), r.Read(modeldir.OutputPooled, pooled)); err != nil {
					return err
				}
				for i := range batch {
					out := c.values[i*(states+width):]
					copy(out, last[i*states:][:states])
					at := i*s[1] + e.Config.Pooled(ids[i*s[1]:][:s[1]])
					copy(out[states:], pooled[at*width:][:width])
				}
				return nil
			}
		}
		return c, tape, err
	}}
}

// denoiser is a U-Net with LoRAs, none or more, at a weight of 1.
func denoiser(u *modeldir.Denoiser, loras []modeldir.Adapted) spec {
	names := []string{peer.InputSample, peer.InputTimestep, peer.InputStates}
	xl := u.Config.AdditionDim > 0
	if xl {
		names = append(names, peer.InputPooled, peer.InputTimeIDs)
	}
	return spec{names, func(in []peer.Tensor) (*call, *device.Tape, error) {
		s, states := in[0].Shape, in[2].Shape
		if len(s) != 4 || len(states) != 3 {
			return nil, nil, fmt.Errorf("sample %v and states %v, want [batch, channels, h, w] and [batch, tokens, width]", s, states)
		}
		var values [][]float32
		for _, t := range in {
			v, err := t.Floats()
			if err != nil {
				return nil, nil, err
			}
			values = append(values, v)
		}
		sample, timestep, context := values[0], values[1], values[2]
		if len(timestep) != 1 {
			return nil, nil, fmt.Errorf("%s has %d values, want 1", peer.InputTimestep, len(timestep))
		}
		time := u.Config.TimeInput(float64(timestep[0]))
		var addition []float32
		if xl {
			var err error
			if addition, err = additions(u.Config, s[0], in[3], values[3], values[4]); err != nil {
				return nil, nil, err
			}
			time = slices.Repeat(time, s[0])
		}
		tape, err := u.TapeBeside(s[0], s[2], s[3], states[1], modeldir.Beside{LoRAs: loras})
		c := channelsLast(modeldir.OutputPrediction, s[0], u.Config.OutChannels, s[2], s[3])
		latents := make([]float32, len(sample))
		c.write = func(r device.Run) error {
			nn.ToChannelsLast(latents, sample, s[0], s[1], s[2]*s[3])
			err := errors.Join(
				r.Write(modeldir.InputLatents, latents),
				r.Write(modeldir.InputTime, time),
				r.Write(modeldir.InputContext, context))
			if xl {
				err = errors.Join(err, r.Write(modeldir.InputAddition, addition))
			}
			for _, scale := range modeldir.Scales(loras, []float64{1}[:len(loras)]) {
				err = errors.Join(err, r.Write(scale.Input, scale.Value))
			}
			return err
		}
		return c, tape, err
	}}
}

// additions are the vectors that Stable Diffusion XL is conditioned on: a pooled state, then a sinusoid for each number of its
// time ids.
func additions(c unet.Config, batch int, pooled peer.Tensor, states, ids []float32) (out []float32, err error) {
	width := c.AdditionDim - unet.AdditionTimes*c.AdditionTimeDim
	if len(pooled.Shape) != 2 || pooled.Shape[0] != batch || pooled.Shape[1] != width || len(ids) != batch*unet.AdditionTimes {
		return nil, fmt.Errorf("%s %v and %d %s, want [%d, %d] and %d for each", peer.InputPooled, pooled.Shape, len(ids), peer.InputTimeIDs, batch, width, unet.AdditionTimes)
	}
	for i := range batch {
		out = append(out, states[i*width:][:width]...)
		for _, id := range ids[i*unet.AdditionTimes:][:unet.AdditionTimes] {
			out = append(out, nn.Sinusoid(float64(id), c.AdditionTimeDim, c.CosFirst, c.FreqShift)...)
		}
	}
	return out, nil
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
	last, values := make([]float32, n), make([]float32, n)
	return &call{shape: shape, values: values, read: func(r device.Run) error {
		err := r.Read(output, last)
		nn.ToChannelsFirst(values, last, shape[0], shape[1], shape[2]*shape[3])
		return err
	}}
}
