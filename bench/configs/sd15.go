// Package configs has the numbers of published Stable Diffusion models, in the words of their config files, and the
// networks they describe: what the shapes of the kernel table and the random weights of true size are made from.
//
// The package may import the engine's device, nn and model packages.
package configs

// object is a JSON object.
type object = map[string]any

// SD15 gives the config files of Stable Diffusion 1.5 by their place in a model's folder, without a tokenizer and
// without the parts that are not run. Figures: the model runwayml/stable-diffusion-v1-5 as published for diffusers;
// Rombach et al. 2022, arXiv 2112.10752.
func SD15() Files {
	none := []any{nil, nil}
	return Files{
		"model_index.json": object{
			"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1",
			"requires_safety_checker": false, "feature_extractor": none, "image_encoder": none, "safety_checker": none,
			"scheduler": []any{"diffusers", "PNDMScheduler"}, "text_encoder": []any{"transformers", "CLIPTextModel"},
			"tokenizer": []any{"transformers", "CLIPTokenizer"}, "unet": []any{"diffusers", "UNet2DConditionModel"},
			"vae": []any{"diffusers", "AutoencoderKL"},
		},
		"scheduler/scheduler_config.json": object{
			"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
			"beta_end": 0.012, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
		},
		"text_encoder/config.json": clipText(768, 3072, 12, 12, "quick_gelu"),
		"unet/config.json": object{
			"_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
			"block_out_channels": []int{320, 640, 1280, 1280}, "attention_head_dim": 8, "cross_attention_dim": 768,
			"down_block_types": []string{"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"},
			"up_block_types":   []string{"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"},
			"norm_num_groups":  32, "norm_eps": 1e-5, "act_fn": "silu", "flip_sin_to_cos": true, "freq_shift": 0, "downsample_padding": 1,
		},
		"vae/config.json": autoencoder(512, 0.18215),
	}
}

// clipText is a text encoder of CLIP (Radford et al. 2021, arXiv 2103.00020).
func clipText(width, intermediate, layers, heads int, activation string) object {
	return object{
		"architectures": []string{"CLIPTextModel"}, "model_type": "clip_text_model", "vocab_size": 49408, "max_position_embeddings": 77,
		"hidden_size": width, "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
		"projection_dim": width, "hidden_act": activation, "layer_norm_eps": 1e-5, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
	}
}

// autoencoder is the one of Stable Diffusion 1, 2 and XL, which differ in scale only.
func autoencoder(sampleSize int, scale float64) object {
	four := func(name string) []string { return []string{name, name, name, name} }
	return object{
		"_class_name": "AutoencoderKL", "sample_size": sampleSize, "in_channels": 3, "out_channels": 3, "latent_channels": 4,
		"block_out_channels": []int{128, 256, 512, 512}, "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu",
		"down_block_types": four("DownEncoderBlock2D"), "up_block_types": four("UpDecoderBlock2D"), "scaling_factor": scale,
	}
}
