//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// pictureGoldens has what diffusers drew from pictures and under masks.
const pictureGoldens = "../testdata/golden/sdxl"

// TestGenerateFromPictures: from a picture, and under a mask, the command draws what diffusers draws, of the picture's own size,
// and tells of the turn that looks at it.
func TestGenerateFromPictures(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(pictureGoldens, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Runs []struct {
			Model, Kind, Sampler, Prompt string
			NegativePrompt               string `json:"negative_prompt"`
			Steps                        int
			GuidanceScale                float64 `json:"guidance_scale"`
			Strength                     float64
			Seed                         uint64
			Image, Mask, PNG             string
			OriginalSize                 []int `json:"original_size"`
		}
	}
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	models := []string{"tiny-sd15", "tiny-sdxl"}
	s := up(t, "--models", filepath.Join(pictureGoldens[len("../"):], models[0])+","+filepath.Join(pictureGoldens[len("../"):], models[1]))
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	drawn := map[string]int{}
	for _, r := range index.Runs {
		if !slices.Contains(models, r.Model) || r.Kind != "img2img" && r.Kind != "inpaint" || r.OriginalSize != nil {
			continue
		}
		drawn[r.Model+" "+r.Kind]++
		input := func(name string) string { return filepath.Join(pictureGoldens[len("../"):], "inputs", name) }
		out := filepath.Join(t.TempDir(), "out.png")
		args := []string{
			"generate", r.Prompt, "--model", r.Model, "-o", out, "--server", s.addresses["orchestrator"], "--negative-prompt", r.NegativePrompt, "--sampler", r.Sampler,
			"--steps", strconv.Itoa(r.Steps), "--guidance-scale", number(r.GuidanceScale), "--seed", strconv.FormatUint(r.Seed, 10),
			"--init-image", input(r.Image), "--strength", number(r.Strength),
		}
		if r.Mask != "" {
			args = append(args, "--mask", input(r.Mask))
		}
		got := runCommand(t, args...)
		if got.code != 0 || !strings.Contains(got.stderr, "decoder encode_image done") {
			t.Fatalf("%q: exit code %d: %s%s", args, got.code, got.stdout, got.stderr)
		}
		compare(t, filepath.Join(pictureGoldens, r.PNG), out)
	}
	if len(drawn) != 2*len(models) {
		t.Errorf("drawn were %v", drawn)
	}
}

// TestDrainWaitsForPictures: a service that is drained while it looks at a picture answers once that has ended, with the scratch
// given back, and takes no other meanwhile.
func TestDrainWaitsForPictures(t *testing.T) {
	const component, side = "starter/vae.encoder", 768
	s := startServer(t, command(t, "decoder", "--log-level", "info"))
	d := stagerpc.New(s.conn, stage.KindDecoder)
	if err := d.Load(t.Context(), stage.LoadRequest{Component: component}, nil); err != nil {
		t.Fatal(err)
	}
	before, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	photo, err := os.ReadFile("../docs/starter.png")
	if err != nil {
		t.Fatal(err)
	}
	look := func() error {
		_, err := d.Work(t.Context(), stage.WorkRequest{
			Turn: "encode_image", Components: []string{component}, Options: stage.Options{"width": stage.IntOption(side), "height": stage.IntOption(side)},
			Values: stage.Values{{Name: "init_image", File: &stage.File{Media: "image/png", Data: photo}}},
		}, stage.Observer{})
		return err
	}
	looked := make(chan error, 1)
	go func() { looked <- look() }()
	for used := before.UsedBytes; used <= before.UsedBytes; { // until its scratch is taken
		select {
		case err := <-looked:
			t.Fatalf("no scratch was seen: %v", err)
		default:
		}
		info, err := d.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		used = info.UsedBytes
	}
	drained := make(chan error, 1)
	go func() { drained <- d.Drain(t.Context()) }()
	for refused := false; !refused; { // from when it drains
		info, err := d.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		refused = info.Draining
	}
	if err := look(); !errors.Is(err, &stage.Error{Reason: stage.StageDraining}) {
		t.Errorf("another picture while it drains: %v", err)
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	if now, err := d.Info(t.Context()); err != nil || now.UsedBytes != before.UsedBytes {
		t.Errorf("drained, %d bytes are used, %d were before: %v", now.UsedBytes, before.UsedBytes, err)
	}
	if err := <-looked; err != nil {
		t.Errorf("the picture that it looked at: %v", err)
	}
}
