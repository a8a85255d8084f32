package config

import "slices"

// irrelevant is the one table of what a config may say without a word from us: the keys that diffusers 0.42 and
// transformers 5 know, on which no picture depends, with the reason. Every other key that they know is read, and refused
// where its value asks for what we do not have: configtest walks the keys they know.
func irrelevant() []struct {
	reason  string
	classes []string
	keys    []string
} {
	const (
		ddim, ddpm, lcm, heun = "DDIMScheduler", "DDPMScheduler", "LCMScheduler", "HeunDiscreteScheduler"
		euler, dpm, unipc     = "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
		sde, deis, tcd        = "DPMSolverSDEScheduler", "DEISMultistepScheduler", "TCDScheduler"
		unet, vae             = "UNet2DConditionModel", "AutoencoderKL"
		text, tokens          = "CLIPTextModel", "CLIPTokenizer"
		pipeline              = "StableDiffusionPipeline"
		control               = "ControlNetModel"
	)
	return []struct {
		reason  string
		classes []string
		keys    []string
	}{
		{"read only with thresholding, which is refused", []string{ddim, ddpm, lcm, dpm, unipc, deis, tcd}, []string{"dynamic_thresholding_ratio", "sample_max_value"}},
		{"read only where samples are clipped, which the pipeline turns off in a model's own scheduler", []string{ddim, ddpm, lcm, heun, tcd}, []string{"clip_sample_range"}},
		{"read only for Karras sigmas, and then refused", []string{euler, unipc}, []string{"sigma_min", "sigma_max"}},
		{"read only for flow matching, which is refused", []string{dpm, unipc, deis}, []string{"flow_shift", "time_shift_type"}},

		{"noise is the request's", []string{sde}, []string{"noise_sampler_seed"}},
		{"the reference never looks at it", []string{tcd}, []string{"timestep_scaling"}},

		{"of training", []string{unet}, []string{"dropout"}},
		{"everything is computed in float32", []string{unet, control}, []string{"upcast_attention"}},
		{"everything is computed in float32", []string{vae}, []string{"force_upcast"}},
		{"both values compute the same", []string{unet, control}, []string{"use_linear_projection"}},
		{"read only with an addition_embed_type, the accepted one of which does not need it", []string{unet, control}, []string{"addition_embed_type_num_heads"}},
		{"read only with addition_embed_type text_time or a class_embed_type, which is refused", []string{unet, control}, []string{"addition_time_embed_dim", "projection_class_embeddings_input_dim"}},
		{"no pipeline of Stable Diffusion uses it", []string{vae}, []string{"shift_factor"}},

		{"of training", []string{text}, []string{"attention_dropout", "initializer_factor", "initializer_range"}},
		{"the tokenizer says which these are", []string{text}, []string{"bos_token_id", "pad_token_id"}},
		{"which way the states are handed over, or computed to the same end", []string{text}, []string{
			"output_hidden_states", "output_attentions", "return_dict", "attn_implementation", "experts_implementation", "chunk_size_feed_forward",
		}},
		{"of other networks than a text encoder", []string{text}, []string{"is_encoder_decoder", "id2label", "label2id", "num_labels", "problem_type", "rope_scaling", "rope_theta"}},
		{"a note; model_index.json tells the class, and the weights their type", []string{text}, []string{
			"model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "name_or_path", "_commit_hash",
		}},

		{"of decoding tokens to text, or of chats", []string{tokens}, []string{
			"clean_up_tokenization_spaces", "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "errors",
			"chat_template", "chat_control_tokens", "response_schema", "response_template",
		}},
		{"a CLIPTokenizer always lowers case, and puts start and end around a text and no space before it", []string{tokens}, []string{
			"add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case",
		}},
		{"the pipeline says how long texts are made, and takes the ids alone", []string{tokens}, []string{
			"max_length", "model_input_names", "pad_to_multiple_of", "pad_token_type_id", "stride", "truncation_strategy",
		}},
		{"where the tokenizer came from", []string{tokens}, []string{
			"backend", "files_loaded", "gguf_file", "name_or_path", "processor_class", "tokenizer_file", "verbose", "vocab_file",
		}},
		{"of tokenizers of another class", []string{tokens}, []string{"fix_mistral_regex", "unk_id"}},

		{"no part of making a picture: a filter behind it", []string{pipeline}, []string{"safety_checker", "feature_extractor", "requires_safety_checker"}},
		{"an IP-Adapter has an image encoder of its own", []string{pipeline}, []string{"image_encoder"}},
	}
}

// Irrelevant gives the reason why no picture depends on a key of a class's config, for each such key.
func Irrelevant(class string) map[string]string {
	out := map[string]string{}
	for _, row := range irrelevant() {
		if slices.Contains(row.classes, class) {
			for _, key := range row.keys {
				out[key] = row.reason
			}
		}
	}
	return out
}
