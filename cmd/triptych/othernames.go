package main

import "strings"

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
