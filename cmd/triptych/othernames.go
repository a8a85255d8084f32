package main

import (
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/sampler"
)

// samplerOf is our name of what other programs call a sampler, with the schedule they name beside it.
func samplerOf(name, schedule string) (ours string, ok bool) {
	if slices.Contains(sampler.Names(), name) && schedule == "" {
		return name, true
	}
	name, schedule = strings.ToLower(name), strings.ToLower(schedule)
	for _, suffix := range []string{" karras", "_karras"} { // as it was before schedules had names
		if short, cut := strings.CutSuffix(name, suffix); cut {
			name, schedule = short, "karras"
		}
	}
	base, ok := map[string]string{
		"euler": "euler", "euler a": "euler_a", "euler_a": "euler_a", "euler_ancestral": "euler_a", "euler ancestral": "euler_a",
		"dpm++ 2m": "dpmpp_2m", "dpmpp_2m": "dpmpp_2m", "dpm++ 2m sde": "dpmpp_2m_sde", "dpmpp_2m_sde": "dpmpp_2m_sde", "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
		"heun": "heun", "lms": "lms", "ddim": "ddim", "ddpm": "ddpm", "plms": "pndm", "pndm": "pndm", "unipc": "unipc", "uni_pc": "unipc", "lcm": "lcm",
	}[name]
	switch schedule {
	case "automatic": // what A1111 then takes
		schedule = map[string]string{"dpmpp_2m": "karras", "dpmpp_2m_sde": "exponential"}[base]
	case "uniform", "normal", "default":
		schedule = ""
	}
	if schedule != "" {
		base += "_" + schedule
	}
	return base, ok && slices.Contains(sampler.Names(), base)
}

// fileName is the name of the model in a file that other programs name with its folder, its ending or its hash.
func fileName(text string) string {
	if hash := strings.LastIndex(text, " ["); hash > 0 && strings.HasSuffix(text, "]") {
		text = text[:hash]
	}
	text = text[strings.LastIndexAny(text, `/\`)+1:]
	for _, ext := range []string{".safetensors", ".ckpt", ".pt", ".pth", ".bin"} {
		text = strings.TrimSuffix(text, ext)
	}
	return text
}

// upscalerOf is the name of the upscaler that A1111 gives another one, empty of Lanczos' filter, which it takes for none as well.
func upscalerOf(name string) string {
	ours, ok := map[string]string{
		"None": "", "Lanczos": "", "R-ESRGAN 4x+": "RealESRGAN_x4plus", "R-ESRGAN 4x+ Anime6B": "RealESRGAN_x4plus_anime_6B", "R-ESRGAN 2x+": "RealESRGAN_x2plus",
		"R-ESRGAN General 4xV3": "realesr-general-x4v3", "R-ESRGAN AnimeVideo": "realesr-animevideov3",
	}[name]
	if !ok {
		return fileName(name)
	}
	return ours
}
