package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/triptych-serving/triptych/engine/imaging"
)

// TestFromComfyUI: the graph that ComfyUI keeps in a PNG becomes a request; what a saver wrote beside it as A1111 does comes first.
func TestFromComfyUI(t *testing.T) {
	const graph = `{
		"3": {"class_type": "KSampler", "inputs": {"seed": 11, "steps": 20, "cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0,
			"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}, "is_changed": [NaN]},
		"4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "xl\\dreamer_8.safetensors"}},
		"5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
		"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a hut", "clip": ["4", 1]}},
		"7": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["4", 1]}}}`
	want := request("a hut", "fog", "dreamer_8", "dpmpp_2m_karras", 20, 512, 768, 7, 11)
	spec, options, warnings, err := asked(t, picture(t, imaging.PNG, "prompt", graph))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, spec, protocmp.Transform()); diff != "" || len(options) > 0 {
		t.Errorf("options %q, %s", options, diff)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "not its pixels") {
		t.Errorf("warnings %q", warnings)
	}
	if _, _, _, err := asked(t, picture(t, imaging.PNG, "prompt", strings.ReplaceAll(graph, "KSampler", "SamplerCustom"))); err == nil || !strings.Contains(err.Error(), "SamplerCustom") {
		t.Error(err)
	}
}
