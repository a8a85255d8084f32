package modeldir

import "github.com/triptych-serving/triptych/engine/model/kind"

// What files of published models do not tell, from the configs that were published with them: numbers of heads and groups,
// activations, factors and schedules. Widths that nobody published have no facts, which is nil.

// unetFacts knows heads: 8 in Stable Diffusion 1, 64 channels each since.
func unetFacts(base kind.Base, told map[string]any) map[string]any {
	channels, _ := told["block_out_channels"].([]int)
	facts := map[string]any{"norm_num_groups": 32}
	switch context := told["cross_attention_dim"]; {
	case base == kind.SD1 && context == 768:
		facts["attention_head_dim"], facts["sample_size"] = 8, 64
		return facts
	case base == kind.SD2 && context == 1024:
		facts["sample_size"] = 96
	case base == kind.SDXL && context == 2048:
		facts["sample_size"], facts["addition_time_embed_dim"] = 128, 256
	default:
		return nil
	}
	var heads []int
	for _, c := range channels {
		heads = append(heads, c/64)
	}
	facts["attention_head_dim"] = heads
	return facts
}

// vaeFacts knows the factors of latents. The autoencoders of Stable Diffusion 1, 2 and XL have the same shapes.
func vaeFacts(base kind.Base, told map[string]any) map[string]any {
	channels, _ := told["block_out_channels"].([]int)
	if len(channels) != 4 || channels[0] != 128 {
		return nil
	}
	factor := 0.18215
	if base == kind.SDXL {
		factor = 0.13025
	}
	return map[string]any{"norm_num_groups": 32, "scaling_factor": factor}
}

// textFacts knows heads of 64 and activations. Of open_clip's encoder of Stable Diffusion 2 the last layer is not used.
func textFacts(base kind.Base, folder string, told map[string]any) map[string]any {
	width, _ := told["hidden_size"].(int)
	facts := map[string]any{"num_attention_heads": width / 64, "hidden_act": "gelu"}
	switch {
	case width == 768:
		facts["hidden_act"] = "quick_gelu"
	case base == kind.SD2 && width == 1024:
		layers, _ := told["num_hidden_layers"].(int)
		facts["num_hidden_layers"] = layers - 1
	case folder == TextEncoder2Folder && width == 1280:
	default:
		return nil
	}
	return facts
}

// schedulerFacts are those of the published models.
func schedulerFacts(base kind.Base) map[string]any {
	facts := map[string]any{
		"beta_end": 0.012, "beta_start": 0.00085, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "steps_offset": 1,
		"clip_sample": false, "set_alpha_to_one": false, "skip_prk_steps": true, "prediction_type": "epsilon", "_class_name": "PNDMScheduler",
	}
	switch base {
	case kind.SD2:
		facts["_class_name"] = "DDIMScheduler"
		delete(facts, "skip_prk_steps")
	case kind.SDXL:
		facts["_class_name"], facts["timestep_spacing"] = "EulerDiscreteScheduler", "leading"
		delete(facts, "set_alpha_to_one")
		delete(facts, "skip_prk_steps")
		delete(facts, "clip_sample")
	}
	return facts
}
