package simulate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

const described = `{"model": {"name": "m", "side_px": 64, "encoder": {"weights_bytes": 3, "scratch_bytes": 1, "seconds": 0.5}, "denoiser": {"weights_bytes": 8, "scratch_bytes": 2, "seconds": 4}, "decoder": {"weights_bytes": 2, "scratch_bytes": 0, "seconds": 0}}}
`

func TestReadTrace(t *testing.T) {
	text := `
{"job": {"at_seconds": 2, "model": "m", "images": 3, "width_px": 128, "height_px": 64}}
{"job": {"at_seconds": 1, "model": "sd15:a"}}
` + described
	got, err := ReadTrace(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Job{{AtSeconds: 1, Model: "sd15:a", Images: 1, WidthPx: 512, HeightPx: 512}, {AtSeconds: 2, Model: "m", Images: 3, WidthPx: 128, HeightPx: 64}}
	if !reflect.DeepEqual(got.Jobs, want) || len(got.Models) != 2 || got.Models[0].Name != "m" || got.Models[1].Denoiser.WeightsBytes != 1_719_000_000 {
		t.Errorf("got %+v", got)
	}
	if p := got.Models[0].turn(stage.KindDenoiser, got.Jobs[1]); p != (Part{8, 4, 8}) {
		t.Errorf("of twice the pixels a turn takes %+v", p)
	}
	if p := got.Models[0].turn(stage.KindEncoder, got.Jobs[1]); p != (Part{3, 1, 0.5}) {
		t.Errorf("the encoder, which sees no pixels, takes %+v", p)
	}
}

func TestReadTraceRefuses(t *testing.T) {
	job := func(fields string) string { return `{"job": {"model": "sd15", ` + fields + `}}` }
	many := func() string {
		var b strings.Builder
		for i := range MaxModels + 1 {
			fmt.Fprintf(&b, `{"job": {"model": "sd15:%d"}}`+"\n", i)
		}
		return b.String()
	}
	for _, c := range []struct {
		name, text, field string
		reason            stage.Reason
	}{
		{"no JSON", "{", "line 1: object", stage.InvalidField},
		{"neither", "\n{}", "line 2: object", stage.InvalidField},
		{"both", `{"job": {"model": "m"}, "model": {"name": "m"}}`, "line 1: object", stage.InvalidField},
		{"two in a line", job(`"images": 1`) + job(`"images": 1`), "line 1: object", stage.InvalidField},
		{"unknown field", job(`"image": 1`), "line 1: object", stage.InvalidField},
		{"no images", job(`"images": -1`), "line 1: job.images", stage.InvalidField},
		{"many images", job(`"images": 65`), "line 1: job.images", stage.InvalidField},
		{"before the beginning", job(`"at_seconds": -1`), "line 1: job.at_seconds", stage.InvalidField},
		{"wide", job(`"width_px": 16385`), "line 1: job.width_px", stage.InvalidField},
		{"high", job(`"height_px": -8`), "line 1: job.height_px", stage.InvalidField},
		{"no model", `{"job": {}}`, "line 1: job.model", stage.InvalidField},
		{"unknown model", `{"job": {"model": "sd16"}}`, "model", stage.ModelNotFound},
		{"described twice", described + described, "line 2: model.name", stage.InvalidField},
		{"no side", strings.Replace(described, "64", "0", 1), "line 1: model.side_px", stage.InvalidField},
		{"no weights", strings.Replace(described, `"weights_bytes": 8`, `"weights_bytes": 0`, 1), "line 1: model.denoiser.weights_bytes", stage.InvalidField},
		{"less scratch than none", strings.Replace(described, `"scratch_bytes": 2`, `"scratch_bytes": -2`, 1), "line 1: model.denoiser.scratch_bytes", stage.InvalidField},
		{"backwards", strings.Replace(described, `"seconds": 4`, `"seconds": -4`, 1), "line 1: model.denoiser.seconds", stage.InvalidField},
		{"many models", many(), fmt.Sprintf("line %d: model", MaxModels+1), stage.InvalidField},
		{"long line", strings.Repeat(" ", maxLineBytes+1), "line 1: length", stage.InvalidField},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ReadTrace(strings.NewReader(c.text))
			var e *stage.Error
			if !errors.As(err, &e) || e.Reason != c.reason || e.Metadata["field"] != c.field || e.Metadata["accepted"] == "" {
				t.Errorf("got %v, expected %s about %q", err, c.reason, c.field)
			}
		})
	}
}

func TestReadTracePassesOnTheReadersError(t *testing.T) {
	if _, err := ReadTrace(io.MultiReader(strings.NewReader(described), failing{})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// FuzzTrace: whatever is read is within bounds, and what is written of it is read the same.
func FuzzTrace(f *testing.F) {
	f.Add([]byte(described + `{"job": {"at_seconds": 1, "model": "m"}}`))
	f.Add([]byte(`{"job": {"at_seconds": 1e300, "model": "sd15:a", "images": 2}}`))
	f.Add([]byte(`{"job":{"model":"sdxl"}}` + "\n" + `{"job":{"model":"starter","width_px":8}}`))
	f.Add([]byte(turned))
	f.Add([]byte(sets))
	f.Add([]byte(`{"` + strings.Repeat("x", 20_000) + `": 1}`)) // of which the decoder's error tells all
	f.Fuzz(func(t *testing.T, text []byte) {
		trace, err := ReadTrace(bytes.NewReader(text))
		if err != nil {
			if stage.ReasonOf(err) == "" || len(err.Error()) > 10_000 {
				t.Fatalf("%v has no reason, or is too long", err)
			}
			return
		}
		if len(trace.Models) > MaxModels || len(trace.Components()) > maxParts || len(trace.Jobs) > MaxJobs {
			t.Fatalf("%d models and %d jobs", len(trace.Models), len(trace.Jobs))
		}
		for _, j := range trace.Jobs {
			if len(j.Turns) > 0 {
				if len(j.Turns) > maxJobTurns {
					t.Fatalf("%+v was read", j)
				}
				continue
			}
			if trace.model(j.Model) == nil || j.Images < 1 || j.WidthPx < 1 || j.HeightPx < 1 {
				t.Fatalf("%+v was read", j)
			}
		}
		var out bytes.Buffer
		if err := trace.Write(&out); err != nil {
			t.Fatal(err)
		}
		again, err := ReadTrace(&out)
		if err != nil || !reflect.DeepEqual(trace, again) {
			t.Fatalf("%+v was written and %+v read: %v", trace, again, err)
		}
	})
}
