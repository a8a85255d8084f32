package planner

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// header is that of a safetensors file in F16.
type header map[string]any

func (h header) add(end int64, name string, shape ...int) int64 {
	begin, elems := end, int64(1)
	for _, n := range shape {
		elems *= int64(n)
	}
	h[name] = map[string]any{"dtype": "F16", "shape": append([]int{}, shape...), "data_offsets": []int64{begin, begin + 2*elems}}
	return begin + 2*elems
}

// write writes nothing but the header.
func (h header) write(t *testing.T, path string) {
	t.Helper()
	data, err := json.Marshal(h)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, append(binary.LittleEndian.AppendUint64(nil, uint64(len(data))), data...), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// published makes the headers of Stable Diffusion XL as one file, and of a LoRA of rank 32 for all of its U-Net's transformers.
func published(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(goldens + "sdxl/names/sdxl-single-file.txt.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	base, lora := header{}, header{}
	end, loraEnd := int64(0), int64(0)
	for lines := bufio.NewScanner(unzipped); lines.Scan(); {
		name, sides, _ := strings.Cut(lines.Text(), " ")
		var shape []int
		for _, side := range strings.FieldsFunc(sides, func(r rune) bool { return r == 'x' }) {
			n, err := strconv.Atoi(side)
			if err != nil {
				t.Fatal(err)
			}
			shape = append(shape, n)
		}
		end = base.add(end, name, shape...)
		if layer, ok := strings.CutPrefix(strings.TrimSuffix(name, ".weight"), "model.diffusion_model."); ok && len(shape) == 2 && strings.Contains(name, "transformer_blocks") {
			layer = "lora_unet_" + strings.ReplaceAll(layer, ".", "_")
			loraEnd = lora.add(loraEnd, layer+".lora_down.weight", 32, shape[1])
			loraEnd = lora.add(loraEnd, layer+".lora_up.weight", shape[0], 32)
			loraEnd = lora.add(loraEnd, layer+".alpha")
		}
	}
	base.write(t, filepath.Join(dir, "sd_xl_base_1.0.safetensors"))
	lora.write(t, filepath.Join(dir, "style.safetensors"))
	for _, file := range []string{"tokenizer/vocab.json", "tokenizer_2/vocab.json"} {
		text(t, filepath.Join(dir, "sd_xl_base_1.0", file), "{}")
	}
}

func text(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// visions makes the header of ip-adapter_sdxl_vit-h.safetensors and the config of its image encoder, and the config of
// diffusers/controlnet-canny-sdxl-1.0.
func visions(t *testing.T, dir string) {
	t.Helper()
	ip := header{}
	end := ip.add(0, "image_proj.proj.weight", 4*2048, 1024)
	end = ip.add(end, "image_proj.proj.bias", 4*2048)
	end = ip.add(end, "image_proj.norm.weight", 2048)
	end = ip.add(end, "image_proj.norm.bias", 2048)
	layer := 0
	for _, of := range []struct{ layers, width int }{{4, 640}, {20, 1280}, {30, 1280}, {6, 640}, {10, 1280}} { // down, up, middle
		for range of.layers {
			end = ip.add(end, fmt.Sprintf("ip_adapter.%d.to_k_ip.weight", 2*layer+1), of.width, 2048)
			end = ip.add(end, fmt.Sprintf("ip_adapter.%d.to_v_ip.weight", 2*layer+1), of.width, 2048)
			layer++
		}
	}
	ip.write(t, filepath.Join(dir, "ip-adapter_sdxl_vit-h.safetensors"))
	text(t, filepath.Join(dir, "ip-adapter_sdxl_vit-h", "image_encoder", "config.json"), `{"model_type": "clip_vision_model", "architectures": ["CLIPVisionModelWithProjection"],
		"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "hidden_act": "gelu", "image_size": 224, "patch_size": 14, "projection_dim": 1024}`)
	text(t, filepath.Join(dir, "canny", "config.json"), `{"_class_name": "ControlNetModel", "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
		"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "transformer_layers_per_block": [1, 2, 10], "cross_attention_dim": 2048,
		"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816, "use_linear_projection": true,
		"conditioning_embedding_out_channels": [16, 32, 96, 256]}`)
}

// TestTrueSizes: Stable Diffusion XL with a ControlNet, an IP-Adapter and a LoRA is planned where nothing is there but headers and
// configs. The base has the published numbers of parameters, adapters what their shapes add up to.
func TestTrueSizes(t *testing.T) {
	dir := t.TempDir()
	published(t, dir)
	visions(t, dir)
	req := EstimateRequest{Model: "sd_xl_base_1.0", Guided: true}
	plain, _, err := estimate(t, 0, req, dir)
	if err != nil {
		t.Fatal(err)
	}
	req.Options = map[string]string{"controlnets": "canny:0.8", "ip_adapter": "ip-adapter_sdxl_vit-h:0.6", "loras": "style"}
	e, _, err := estimate(t, 0, req, dir)
	if err != nil {
		t.Fatal(err)
	}
	if e.WidthPx != 1024 || e.HeightPx != 1024 || e.Present || !e.Runs {
		t.Errorf("%d x %d, present %v, runs %v", e.WidthPx, e.HeightPx, e.Present, e.Runs)
	}
	want := map[string]int64{
		"text_encoder": 123_060_480, "text_encoder_2": 694_659_840, "unet": 2_567_463_684, "vae": 49_490_179 + 20, "canny/controlnet": 1_251_014_160,
		"ip-adapter_sdxl_vit-h/image_encoder": 632_076_800, "ip-adapter_sdxl_vit-h/ip_adapter": 8192*1024 + 8192 + 2*2048 + 2*2048*(10*640+60*1280), "style/lora.unet": 0,
	}
	for _, s := range e.Stages {
		for _, n := range s.Networks {
			if expected, ok := want[n.Folder]; !ok || expected > 0 && expected != n.Parameters || n.Present || n.StoredBytes != 2*n.Parameters {
				t.Errorf("%s %s: %+v, want %d parameters", s.Kind, s.Turn, n, expected)
			}
			delete(want, n.Folder)
		}
		t.Logf("%s %s: weights %d, scratch %d", s.Kind, s.Turn, s.Footprint.WeightsBytes(), s.Footprint.ScratchBytes)
	}
	if len(want) > 0 {
		t.Errorf("nothing is planned of %v", want)
	}
	with, without := e.Stages[2], plain.Stages[1]
	if with.Turn != "denoise" || without.Turn != "denoise" || with.Footprint.ScratchBytes <= without.Footprint.ScratchBytes {
		t.Errorf("denoising takes %+v with adapters, %+v without", with.Footprint, without.Footprint)
	}
	const budget = 8 << 30
	within, _, err := estimate(t, budget, req, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range within.Stages {
		if needed := s.Footprint.WeightsBytes() + s.Footprint.ScratchBytes; needed > budget {
			t.Errorf("%s %s takes %d bytes of %d", s.Kind, s.Turn, needed, budget)
		}
	}
}
