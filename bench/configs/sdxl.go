package configs

// SDXL gives the config files of Stable Diffusion XL 1.0 as SD15 does. Figures: the model stabilityai/stable-diffusion-xl-base-1.0;
// Podell et al. 2023, arXiv 2307.01952.
func SDXL() Files {
	none := []any{nil, nil}
	tokenizer := []any{"transformers", "CLIPTokenizer"}
	first, second := clipText(768, 3072, 12, 12, "quick_gelu"), clipText(1280, 5120, 32, 20, "gelu")
	second["architectures"] = []string{"CLIPTextModelWithProjection"}
	for _, c := range []object{first, second} { // older than their tokenizer's ids: the largest id is taken for the end
		c["bos_token_id"], c["eos_token_id"], c["pad_token_id"] = 0, 2, 1
	}
	return Files{
		"model_index.json": object{
			"_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.42.1",
			"force_zeros_for_empty_prompt": true, "feature_extractor": none, "image_encoder": none,
			"scheduler": []any{"diffusers", "EulerDiscreteScheduler"}, "text_encoder": []any{"transformers", "CLIPTextModel"},
			"text_encoder_2": []any{"transformers", "CLIPTextModelWithProjection"}, "tokenizer": tokenizer, "tokenizer_2": tokenizer,
			"unet": []any{"diffusers", "UNet2DConditionModel"}, "vae": []any{"diffusers", "AutoencoderKL"},
		},
		"scheduler/scheduler_config.json": object{
			"_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
			"beta_end": 0.012, "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
		},
		"text_encoder/config.json":   first,
		"text_encoder_2/config.json": second,
		"unet/config.json": object{
			"_class_name": "UNet2DConditionModel", "sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
			"block_out_channels": []int{320, 640, 1280}, "attention_head_dim": []int{5, 10, 20}, "cross_attention_dim": 2048,
			"transformer_layers_per_block": []int{1, 2, 10}, "use_linear_projection": true,
			"down_block_types":    []string{"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"},
			"up_block_types":      []string{"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"},
			"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
			"norm_num_groups": 32, "norm_eps": 1e-5, "act_fn": "silu", "flip_sin_to_cos": true, "freq_shift": 0, "downsample_padding": 1,
		},
		"vae/config.json": autoencoder(1024, 0.13025),
	}
}
