//go:build linux

package e2e

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestBadRequests: each is refused before any work, with the field and what would be accepted.
func TestBadRequests(t *testing.T) {
	s := up(t)
	type spec = triptychv1alpha1.GenerationSpec
	for name, c := range map[string]struct {
		spec   *spec
		code   codes.Code
		reason string
		field  string
	}{
		"no spec":            {nil, codes.InvalidArgument, "INVALID_FIELD", "spec"},
		"10,000 characters":  {&spec{Prompt: strings.Repeat("a", 10_000)}, codes.InvalidArgument, "INVALID_FIELD", "prompt"},
		"long negative":      {&spec{Prompt: "x", NegativePrompt: strings.Repeat("é", 5_000)}, codes.InvalidArgument, "INVALID_FIELD", "negative_prompt"},
		"width 0":            {&spec{Prompt: "x", WidthPx: ptr(int32(0))}, codes.InvalidArgument, "SIZE_UNSUPPORTED", "width_px"},
		"width negative":     {&spec{Prompt: "x", WidthPx: ptr(int32(-128))}, codes.InvalidArgument, "SIZE_UNSUPPORTED", "width_px"},
		"height no multiple": {&spec{Prompt: "x", HeightPx: ptr(int32(129))}, codes.InvalidArgument, "SIZE_UNSUPPORTED", "height_px"},
		"height 100,000":     {&spec{Prompt: "x", HeightPx: ptr(int32(100_000))}, codes.InvalidArgument, "SIZE_UNSUPPORTED", "height_px"},
		"steps 0":            {&spec{Prompt: "x", Steps: ptr(int32(0))}, codes.InvalidArgument, "INVALID_FIELD", "steps"},
		"steps 10,000":       {&spec{Prompt: "x", Steps: ptr(int32(10_000))}, codes.InvalidArgument, "INVALID_FIELD", "steps"},
		"guidance NaN":       {&spec{Prompt: "x", GuidanceScale: ptr(float32(math.NaN()))}, codes.InvalidArgument, "INVALID_FIELD", "guidance_scale"},
		"guidance infinite":  {&spec{Prompt: "x", GuidanceScale: ptr(float32(math.Inf(1)))}, codes.InvalidArgument, "INVALID_FIELD", "guidance_scale"},
		"guidance negative":  {&spec{Prompt: "x", GuidanceScale: ptr(float32(-1))}, codes.InvalidArgument, "INVALID_FIELD", "guidance_scale"},
		"unknown sampler":    {&spec{Prompt: "x", Sampler: "eulr"}, codes.InvalidArgument, "SAMPLER_UNSUPPORTED", "sampler"},
		"unknown model":      {&spec{Prompt: "x", Model: "sd9"}, codes.NotFound, "MODEL_NOT_FOUND", "model"},
		"unknown format":     {&spec{Prompt: "x", Output: &triptychv1alpha1.OutputOptions{Format: "bmp"}}, codes.InvalidArgument, "INVALID_FIELD", "output.format"},
		"quality 0":          {&spec{Prompt: "x", Output: &triptychv1alpha1.OutputOptions{Quality: ptr(int32(0))}}, codes.InvalidArgument, "INVALID_FIELD", "output.quality"},
		"count 0":            {&spec{Prompt: "x", ImageCount: ptr(int32(0))}, codes.InvalidArgument, "INVALID_FIELD", "image_count"},
		"count 1,000":        {&spec{Prompt: "x", ImageCount: ptr(int32(1_000))}, codes.InvalidArgument, "INVALID_FIELD", "image_count"},
		"negative previews":  {&spec{Prompt: "x", Preview: &triptychv1alpha1.PreviewOptions{EveryNSteps: -1}}, codes.InvalidArgument, "INVALID_FIELD", "preview.every_n_steps"},
	} {
		events, err := s.generate(t.Context(), c.spec, nil)
		info := errorInfo(err)
		if status.Code(err) != c.code || info.GetReason() != c.reason || info.GetMetadata()["field"] != c.field || info.GetMetadata()["accepted"] == "" {
			t.Errorf("%s: %v with %v", name, err, info)
		}
		if len(events) > 0 {
			t.Errorf("%s: accepted first: %v", name, events[0])
		}
	}
	known := errorInfo(func() error { _, err := s.generate(t.Context(), &spec{Prompt: "x", Sampler: "eulr"}, nil); return err }()).GetMetadata()["accepted"]
	for _, name := range []string{"ddim", "ddpm", "pndm", "lms", "heun", "euler", "euler_karras", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde", "unipc", "lcm"} {
		if !strings.Contains(known, name) {
			t.Errorf("%s is not among the samplers told: %s", name, known)
		}
	}
	if _, err := s.generate(t.Context(), &spec{Prompt: "x", Steps: ptr(int32(1))}, nil); err != nil {
		t.Errorf("a good request after all the bad ones: %v", err)
	}
}

// TestBadCommands: each exits with the code of bad usage and says what is wrong.
func TestBadCommands(t *testing.T) {
	dir := t.TempDir()
	ok := filepath.Join(dir, "x.png")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	photo, wide, large, none := "docs/starter.png", filepath.Join(dir, "wide.png"), filepath.Join(dir, "large.png"), filepath.Join(dir, "none")
	header, err := os.ReadFile("../" + photo)
	if err != nil {
		t.Fatal(err)
	}
	for path, width := range map[string]uint32{wide: 4097, large: 128} { // with a header of such a picture
		binary.BigEndian.PutUint32(header[16:], width)
		binary.BigEndian.PutUint32(header[29:], crc32.ChecksumIEEE(header[12:29]))
		if err := os.WriteFile(path, header, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(large, 16<<20+1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"generate", "x", "-o", ok, "--init-image", none}, 2, "--init-image: open"},
		{[]string{"generate", "x", "-o", ok, "--init-image", dir}, 2, "is a directory"},
		{[]string{"generate", "x", "-o", ok, "--init-image", "README.md"}, 2, "a PNG, JPEG or WebP file"},
		{[]string{"generate", "x", "-o", ok, "--init-image", os.DevNull}, 2, "a PNG, JPEG or WebP file"},
		{[]string{"generate", "x", "-o", ok, "--init-image", wide}, 2, "at most 4096 pixels"},
		{[]string{"generate", "x", "-o", ok, "--init-image", photo, "--mask", large}, 2, "at most 16 MiB"},
		{[]string{"generate", "x", "-o", ok, "--init-image", photo, "--mask", none}, 2, "--mask: open"},
		{[]string{"generate", "x", "-o", ok, "--mask", photo}, 2, "--init-image beside it"},
		{[]string{"generate", "x", "-o", ok, "--strength", "0.5"}, 2, "--init-image beside it"},
		{[]string{"generate", "x", "-o", ok, "--init-image", photo, "--strength", "1.5"}, 2, "above 0, up to 1"},
		{[]string{"generate", "x", "-o", ok, "--init-image", photo, "--strength", "NaN"}, 2, "above 0, up to 1"},
		{[]string{"generate", "x", "-o", ok, "--init-image", photo, "--strength", "0"}, 2, "above 0, up to 1"},
		{[]string{"generate", "x", "-o", ok, "--option", "steps"}, 2, "NAME=VALUE"},
		{[]string{"generate", "x", "-o", ok, "--option", "speed=1"}, 2, "an option of the model: prompt, "},
		{[]string{"generate", "x", "-o", ok, "--option", "steps=many"}, 2, "type int"},
		{[]string{"generate", "x", "-o", ok, "--option", "steps=3"}, 2, "it in steps"},
		{[]string{"models", "sd9"}, 2, "one of starter"},
		{[]string{"plan", "starter", "--inputs", "sketch"}, 2, "init_image, mask"},
		{[]string{"generate"}, 2, "prompt"},
		{[]string{"generate", "a\xff", "-o", ok}, 2, "UTF-8"},
		{[]string{"generate", strings.Repeat("a", 10_000), "-o", ok}, 2, "8192"},
		{[]string{"generate", "x", "-o", filepath.Join(dir, "x.bmp")}, 2, ".png"},
		{[]string{"generate", "x", "-o", filepath.Join(dir, "no/such/folder/x.png")}, 2, "cannot be written"},
		{[]string{"generate", "x", "-o", dir}, 2, ""},
		{[]string{"generate", "x", "-o", ok, "--guidance-scale", "NaN"}, 2, "guidance-scale"},
		{[]string{"generate", "x", "-o", ok, "--steps", "many"}, 2, "steps"},
		{[]string{"generate", "x", "-o", ok, "--steps", "0"}, 2, "1 to 1000"},
		{[]string{"generate", "x", "-o", ok, "--width", "100"}, 2, "a multiple of 8 up to 4096 pixels, such as 96 or 104"},
		{[]string{"generate", "x", "-o", ok, "--sampler", "eulr"}, 2, "euler_karras"},
		{[]string{"generate", "x", "-o", ok, "--model", "sd9"}, 2, "starter"},
		{[]string{"generate", "x", "-o", ok, "--memory-budget", "lots"}, 2, "64MiB"},
		{[]string{"generate", "x", "-o", ok, "--warm-memory", "lots"}, 2, "64MiB"},
		{[]string{"generate", "x", "-o", ok, "--models", filepath.Join(dir, "nothing")}, 2, "models"},
		{[]string{"generate", "x", "-o", ok, "--server", "127.0.0.1:1"}, 1, "127.0.0.1:1"},
		{[]string{"up", "extra"}, 2, "extra"},
		{[]string{"up", "--listen", taken.Addr().String()}, 1, "in use"},
		{[]string{"encoder", "--listen", taken.Addr().String()}, 1, "in use"},
		{[]string{"up", "--metrics-listen", "9090"}, 2, "host:port"},
		{[]string{"up", "--metrics-listen", taken.Addr().String()}, 1, "in use"},
		{[]string{"orchestrator", "--encoder", "a:1", "--denoiser", "a:2", "--decoder", "a:3", "--metrics-listen", "here"}, 2, "--metrics-listen"},
		{[]string{"orchestrator", "--encoder", "a:1", "--denoiser", "a:2", "--decoder", "a:3", "--scaler-listen", "here"}, 2, "--scaler-listen"},
		{[]string{"orchestrator", "--encoder", "a:1", "--denoiser", "a:2", "--decoder", "a:3", "--listen", "127.0.0.1:0", "--scaler-listen", taken.Addr().String()}, 1, "in use"},
		{[]string{"top", "--server", "here"}, 2, "host:port"},
		{[]string{"top", "--server", "127.0.0.1:1"}, 1, "127.0.0.1:1"},
		{[]string{"trace", "-o", dir}, 2, "--output"},
		{[]string{"trace", "-o", filepath.Join(dir, "no/such/folder/x.json")}, 2, "cannot be written"},
		{[]string{"trace", "-o", ok, "--for", "-1s"}, 2, "above 0"},
		{[]string{"trace", "-o", ok, "--server", "here"}, 2, "host:port"},
		{[]string{"trace", "-o", ok, "--server-ca", filepath.Join(dir, "none")}, 2, "none"},
		{[]string{"trace", "-o", ok, "--server", "127.0.0.1:1"}, 1, "127.0.0.1:1"},
		{[]string{"encoder", "--device", "tpu:0"}, 2, "cpu:N or cuda:N"},
		{[]string{"generate", "x", "-o", ok, "--device", "tpu:0"}, 2, "cpu:N or cuda:N"},
		{[]string{"up", "--device", "cuda"}, 2, "cuda:0: a CUDA device is not supported"},
		{[]string{"plan", "starter", "--device", "cuda:1"}, 2, "needs a build with engine/device/cuda"},
		{[]string{"encoder", "--host", "rack/7"}, 2, "--host"},
		{[]string{"up", "--host", ""}, 2, "--host"},
		{[]string{"orchestrator"}, 2, "--"},
		{[]string{"draw"}, 2, "draw"},
		{[]string{"generate", "x", "-o", ok, "--threads", "-1"}, 2, "--threads -1"},
		{[]string{"up", "--threads", "-1"}, 2, "--threads -1"},
		{[]string{"encoder", "--threads", "-1"}, 2, "--threads -1"},
		{[]string{"up", "--listen", ":99999"}, 2, "99999"},
		{[]string{"up", "--metrics-listen", ":99999"}, 2, "99999"},
		{[]string{"encoder", "--listen", ":99999"}, 2, "99999"},
		{[]string{"orchestrator", "--encoder", "a:1", "--denoiser", "a:2", "--decoder", "a:3", "--max-jobs", "0"}, 2, "max-jobs"},
		{[]string{"orchestrator", "--encoder", "a:1", "--denoiser", "a:2", "--decoder", "a:3", "--send-timeout", "-1s"}, 2, "send-timeout"},
		{[]string{"generate", "x", "-o", ok, "--seed", "-1"}, 2, "--seed \"-1\": expected a whole number from 0"},
		{[]string{"orchestrator", "--patience", "soon"}, 2, "--patience \"soon\": expected a duration"},
		{[]string{"plan", "starter", "--guidance-scale", "NaN"}, 2, "guidance-scale"},
		{[]string{"simulate", "--trace", filepath.Join(dir, "none")}, 2, "--trace"},
		{[]string{"simulate", "--from", filepath.Join(dir, "none")}, 2, "--from"},
		{[]string{"trace", "--from", filepath.Join(dir, "none"), "-o", ok}, 2, "--from"},
		{[]string{"simulate", "--arrivals="}, 2, "arrivals"},
		{[]string{"simulate", "--budget="}, 2, "budget"},
		{[]string{"simulate", "--report", dir}, 2, "--report"},
		{[]string{"simulate", "--write-trace", filepath.Join(dir, "no/such/x")}, 2, "--write-trace"},
	} {
		got := runCommand(t, c.args...)
		if got.code != c.code || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%.60q: exit code %d, want %d with %q: %s", c.args, got.code, c.code, c.says, got.stderr)
		}
	}
	if _, err := os.Stat(ok); err == nil {
		t.Error("a refused command wrote a file")
	}
}

// TestBrokenModels: a model that cannot be used is listed with its problem, refused by name, and
// harms no other. Nothing tells where it is on the machine.
func TestBrokenModels(t *testing.T) {
	dir := t.TempDir()
	breakModel := func(name string, spoil func(model string)) {
		model := filepath.Join(dir, name)
		if err := os.CopyFS(model, os.DirFS("../testdata/golden/tiny-v")); err != nil {
			t.Fatal(err)
		}
		spoil(model)
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	unet := "unet/diffusion_pytorch_model.safetensors"
	header := func(path string, length uint64, edit func(map[string]map[string]any)) {
		data, err := os.ReadFile(path)
		must(err)
		n := binary.LittleEndian.Uint64(data)
		h := map[string]map[string]any{}
		must(json.Unmarshal(data[8:8+n], &h))
		edit(h)
		text, err := json.Marshal(h)
		must(err)
		if length == 0 {
			length = uint64(len(text))
		}
		must(os.WriteFile(path, append(append(binary.LittleEndian.AppendUint64(nil, length), text...), data[8+n:]...), 0o600))
	}
	none := func(map[string]map[string]any) {}
	breakModel("whole", func(string) {})
	breakModel("no-vae", func(m string) { must(os.RemoveAll(filepath.Join(m, "vae"))) })
	breakModel("truncated", func(m string) { must(os.Truncate(filepath.Join(m, unet), 1_000_000)) })
	breakModel("huge-header", func(m string) { header(filepath.Join(m, unet), 1<<60, none) })
	breakModel("fp4", func(m string) {
		header(filepath.Join(m, unet), 0, func(h map[string]map[string]any) {
			t := h["conv_in.bias"]
			t["dtype"], t["shape"] = "F4", []int{128}
		})
	})
	breakModel("more", func(m string) {
		header(filepath.Join(m, unet), 0, func(h map[string]map[string]any) {
			h["foo.bar"] = map[string]any{"dtype": "F8_E4M3", "shape": []int{0}, "data_offsets": []int{0, 0}}
		})
	})
	s := up(t, "--models", dir)
	for name, says := range map[string]string{"no-vae": "vae", "truncated": unet, "huge-header": unet, "fp4": "F4"} {
		_, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Model: name, Prompt: "x", Steps: ptr(int32(1))}, nil)
		if info := errorInfo(err); status.Code(err) != codes.FailedPrecondition || info.GetReason() != "MODEL_INVALID" || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v with %v, want MODEL_INVALID that names %s", name, err, info, says)
		}
		if err != nil && strings.Contains(err.Error(), dir) {
			t.Errorf("%s: the error tells where the model is: %v", name, err)
		}
	}
	for _, name := range []string{"whole", "more"} {
		if _, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Model: name, Prompt: "x", Steps: ptr(int32(1))}, nil); err != nil {
			t.Errorf("the model %s beside them: %v", name, err)
		}
	}
	models, err := triptychv1alpha1.NewModelServiceClient(s.conn).ListModels(t.Context(), &triptychv1alpha1.ListModelsRequest{})
	must(err)
	got := runCommand(t, "models", "--models", dir)
	for _, name := range []string{"no-vae", "truncated", "huge-header", "fp4"} {
		if got.code != 0 || !strings.Contains(got.stdout, name) {
			t.Errorf("models: exit code %d\n%s", got.code, got.stdout)
		}
	}
	const warning = `unet: ignores tensors that the network does not have: "foo.bar"`
	plan := runCommand(t, "plan", filepath.Join(dir, "more"))
	if !strings.Contains(got.stdout, "warning: more/"+warning) || !strings.Contains(plan.stdout, "warning: "+warning) {
		t.Errorf("no warning of foo.bar:\n%s\n%s", got.stdout, plan.stdout)
	}
	for _, m := range models.GetModels() {
		if (m.GetName() == "more") != (m.GetWarning() == warning) {
			t.Errorf("ListModels: %s has the warning %q", m.GetName(), m.GetWarning())
		}
	}
}
