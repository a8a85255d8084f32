package kind

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// stored are tensors by their names.
type stored map[string]tensor.Shape

func (s stored) Info(name string) (tensor.DType, tensor.Shape, bool) {
	shape, ok := s[name]
	return tensor.F16, shape, ok
}
func (s stored) Names() []string { return slices.Sorted(maps.Keys(s)) }

// file makes tensors of names, each of which may have its shape behind it.
func file(prefix string, names ...string) stored {
	s := stored{}
	for _, name := range names {
		s[prefix+name] = tensor.Shape{4}
	}
	return s
}

// with adds a tensor of a shape.
func (s stored) with(name string, shape ...int) stored {
	s[name] = shape
	return s
}

const (
	in    = "input_blocks.0.0.weight"
	out   = "output_blocks.0.0.weight"
	clipL = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
	clipH = "cond_stage_model.model.token_embedding.weight"
	xlL   = "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
	xlG   = "conditioner.embedders.1.model.token_embedding.weight"
	vae   = "first_stage_model.decoder.mid.block_1.conv1.weight"
	unet  = "model.diffusion_model."
)

// The base, the parts and their prefixes are told by names and shapes alone.
func TestIdentify(t *testing.T) {
	for name, c := range map[string]struct {
		in   stored
		want Checkpoint
	}{
		"Stable Diffusion 1": {
			file("", clipL, vae).with(unet+in, 320, 4, 3, 3),
			Checkpoint{Base: SD1, UNet: unet, VAE: "first_stage_model.", Text: "cond_stage_model.transformer.", HasVAE: true, HasText: true, InChannels: 4},
		},
		"wrapped twice": {
			file("state_dict.state_dict.", clipL, vae).with("state_dict.state_dict."+unet+in, 320, 4, 3, 3),
			Checkpoint{Base: SD1, UNet: unet, VAE: "first_stage_model.", Text: "cond_stage_model.transformer.", Root: "state_dict.state_dict.", HasVAE: true, HasText: true, InChannels: 4},
		},
		"for inpainting, with a bare autoencoder": {
			file("", clipL, "decoder.mid.block_1.conv1.weight").with(unet+in, 320, 9, 3, 3),
			Checkpoint{Base: SD1, UNet: unet, Text: "cond_stage_model.transformer.", HasVAE: true, HasText: true, InChannels: 9},
		},
		"Stable Diffusion 2": {
			file("", clipH, vae).with(unet+in, 320, 4, 3, 3),
			Checkpoint{Base: SD2, UNet: unet, VAE: "first_stage_model.", Text: "cond_stage_model.model.", OpenText: true, HasVAE: true, HasText: true, InChannels: 4},
		},
		"a U-Net of Stable Diffusion 2": {
			file("", out).with(in, 320, 4, 3, 3).with("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 320, 1024),
			Checkpoint{Base: SD2, VAE: "first_stage_model.", Text: "cond_stage_model.transformer.", InChannels: 4},
		},
		"XL": {
			file("", xlL, xlG, vae).with(unet+in, 320, 4, 3, 3),
			Checkpoint{
				Base: SDXL, UNet: unet, VAE: "first_stage_model.", Text: "conditioner.embedders.0.transformer.", Text2: "conditioner.embedders.1.model.",
				OpenText2: true, HasVAE: true, HasText: true, HasText2: true, InChannels: 4,
			},
		},
		"XL with transformers' names": {
			file("", xlL, "conditioner.embedders.1.transformer.text_model.embeddings.token_embedding.weight").with(unet+in, 320, 4, 3, 3),
			Checkpoint{
				Base: SDXL, UNet: unet, VAE: "first_stage_model.", Text: "conditioner.embedders.0.transformer.", Text2: "conditioner.embedders.1.transformer.",
				HasText: true, HasText2: true, InChannels: 4,
			},
		},
		"a U-Net of XL with diffusers' names": {
			file("", "add_embedding.linear_1.weight", "down_blocks.0.x", "up_blocks.0.x", "time_embedding.linear_1.weight").with("conv_in.weight", 320, 4, 3, 3),
			Checkpoint{Base: SDXL, VAE: "first_stage_model.", Text: "cond_stage_model.transformer.", InChannels: 4, Diffusers: true},
		},
		"a U-Net of XL": {
			file("", out, "label_emb.0.0.weight").with(in, 320, 4, 3, 3),
			Checkpoint{Base: SDXL, VAE: "first_stage_model.", Text: "cond_stage_model.transformer.", InChannels: 4},
		},
	} {
		got, ok, err := Identify(c.in)
		if err != nil || !ok || got != c.want {
			t.Errorf("%s: %+v, %v, %v, want %+v", name, got, ok, err, c.want)
		}
	}
}

// What is no checkpoint that can be read is refused by what it is, and what has nothing of one is left to others.
func TestIdentifyRefuses(t *testing.T) {
	sd := func(channels int) stored { return file("", clipL, vae).with(unet+in, 320, channels, 3, 3) }
	for got, s := range map[string]stored{
		"FLUX": file("", "double_blocks.0.img_attn.qkv.weight"), "Stable Diffusion 3": file(unet, "joint_blocks.0.x"), "Cascade": file("", "clip_txt_mapper.weight"),
		"video": sd(4).with(unet + "input_blocks.1.0.time_stack.x"), "AnimateDiff": file("", "down_blocks.0.motion_modules.0.x"), "edm_mean": sd(4).with("edm_mean"),
		"scale_weight": sd(4).with("scaled_fp8"), "refiner": file("", "conditioner.embedders.0.model.ln_final.weight").with(unet+in, 320, 4, 3, 3),
		"instruct-pix2pix": sd(8), "depth": sd(5), "upscaler": sd(7), "3 input channels": sd(3), "no model.diffusion_model.input_blocks.0.0.weight": file(unet, "input_blocks.1.0.x"),
		"moving average": file("", "model_ema.diffusion_modelinput_blocks00weight", clipL, vae), "a text encoder alone": file("", clipL),
	} {
		_, ok, err := Identify(s)
		var of *Error
		if !ok || !errors.As(err, &of) || !strings.Contains(err.Error(), got) || !strings.Contains(err.Error(), Expected) {
			t.Errorf("%s: %v, %v", got, ok, err)
		}
	}
	for name, s := range map[string]stored{
		"an autoencoder": file("", vae), "one of training": file("", "decoder.mid.block_1.conv1.weight", "model_ema.decay"), "a LoRA": file("", "lora_unet_x.lora_up.weight"), "nothing": {},
	} {
		if _, ok, err := Identify(s); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
}

// Names that belong to no part are known, those of parts are not among them.
func TestLeftover(t *testing.T) {
	for name, want := range map[string]bool{
		"model_ema.decay": true, "betas": true, "loss.logvar": true, "v_pred": true, "cond_stage_model.logit_scale": true, "cond_stage_model.transformer.text_model.embeddings.position_ids": true,
		"lora_te_x.alpha": true, unet + in: false, clipL: false, vae: false, "something.else": false,
	} {
		if Leftover(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// FuzzIdentify: whatever names and shapes a file has, it is told or refused, and what is told is there.
func FuzzIdentify(f *testing.F) {
	f.Add(strings.Join([]string{unet + in, clipL, vae}, " "), byte(4), byte(4))
	f.Add(strings.Join([]string{unet + in, xlL, xlG, "state_dict.x"}, " "), byte(9), byte(4))
	f.Add("state_dict.state_dict.state_dict. state_dict.", byte(0), byte(0))
	f.Add(in+" "+out+" label_emb.0.0.weight middle_block.1.transformer_blocks.0.attn2.to_k.weight", byte(4), byte(2))
	f.Fuzz(func(t *testing.T, text string, channels, rank byte) {
		s := stored{}
		for _, name := range strings.Fields(text) {
			shape := make(tensor.Shape, rank%6)
			for i := range shape {
				shape[i] = int(channels)
			}
			s[name] = shape
		}
		c, ok, err := Identify(s)
		if of := (*Error)(nil); err != nil && (!ok || !errors.As(err, &of)) {
			t.Fatal(ok, err)
		}
		if err != nil || !ok {
			return
		}
		first := c.Root + c.UNet + in
		if c.Diffusers {
			first = c.Root + "conv_in.weight"
		}
		if _, there := s[first]; !there || c.Base == "" || c.InChannels != 4 && c.InChannels != 9 {
			t.Fatalf("%+v of %q", c, text)
		}
	})
}
