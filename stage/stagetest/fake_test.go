package stagetest_test

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestJob takes the steps of a job in order: one turn's values are the next one's.
func TestJob(t *testing.T) {
	for name, c := range map[string]struct {
		model  string
		inputs stage.Values
		images int
	}{
		"from a prompt": {stagetest.Model, nil, 1},
		"from an image": {stagetest.Model, stage.Values{{Name: "init_image", File: stagetest.Photo(32, 32)}, {Name: "control", File: stagetest.Photo(8, 8)}}, 1},
		"in units":      {stagetest.Film, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			recipe, values := stagetest.Recipe(c.model), c.inputs
			stages := map[stage.Kind]stage.Stage{}
			for _, kind := range stage.Kinds() {
				stages[kind] = stagetest.New(kind, nil)
			}
			images := 0
			for _, s := range recipe.Steps(1, func(string) int { return 2 }, c.inputs.Has) {
				for _, component := range s.Turn.Components() {
					if err := stages[s.Turn.Kind].Load(t.Context(), stage.LoadRequest{Component: component}, nil); err != nil {
						t.Fatal(err)
					}
				}
				req := stage.WorkRequest{Turn: s.Turn.Name, Components: s.Turn.Components()}
				for _, p := range s.Turn.Takes {
					for _, v := range values {
						if v.Name == p.Name && v.Unit == s.Unit {
							req.Values = append(req.Values, v)
						}
					}
				}
				result, err := stages[s.Turn.Kind].Work(t.Context(), req, stage.Observer{})
				if err != nil {
					t.Fatalf("%s: %v", s.Turn.Name, err)
				}
				values = append(values, result.Values...)
				if f, ok := result.Values.Get("image"); ok && f.File.WidthPx == 32 && f.File.HeightPx == 32 {
					images++
				}
			}
			if images != c.images {
				t.Errorf("%d images, want %d", images, c.images)
			}
		})
	}
}

func TestParseScript(t *testing.T) {
	script, err := stagetest.ParseScript("fail denoise 2 ENGINE_FAULT; hold load 1;")
	if err != nil {
		t.Fatal(err)
	}
	d := stagetest.New(stage.KindDenoiser, script)
	req := stagetest.Request(stage.KindDenoiser)
	load := stage.LoadRequest{Component: req.Components[0]}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for script.Steps(stagetest.OpLoad) == 0 {
			runtime.Gosched()
		}
	}()
	if err := d.Load(ctx, load, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("the load that was held: %v", err)
	}
	if err := d.Load(t.Context(), load, nil); err != nil {
		t.Fatal(err)
	}
	_, err = d.Work(t.Context(), req, stage.Observer{})
	if stage.ReasonOf(err) != stage.EngineFault {
		t.Fatalf("the scripted failure is %v", err)
	}
	for _, bad := range []string{"fail", "jump denoise 1", "exit denoise 1", "panic denoise x", "warm", "warm much", "warm 1 2"} {
		if _, err := stagetest.ParseScript(bad); err == nil {
			t.Errorf("ParseScript(%q) gave no error", bad)
		}
	}
}

func TestPanic(t *testing.T) {
	script, err := stagetest.ParseScript("panic load 2")
	if err != nil {
		t.Fatal(err)
	}
	e := stagetest.New(stage.KindEncoder, script)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = e.Load(t.Context(), stage.LoadRequest{Component: stagetest.Component(stage.KindEncoder, stagetest.Model)}, nil)
	}()
	if _, err := e.Info(t.Context()); err != nil {
		t.Errorf("Info after a panic: %v", err)
	}
}
