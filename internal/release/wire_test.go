package release

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// teller is a log's handler that tells the events of each collection.
type teller chan string

func (teller) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (l teller) WithAttrs([]slog.Attr) slog.Handler         { return l }
func (l teller) WithGroup(string) slog.Handler              { return l }
func (l teller) Handle(_ context.Context, r slog.Record) error {
	_, rest, _ := strings.Cut(r.Message, "fn=")
	l <- strings.Fields(rest)[0]
	return nil
}

// Every call of a stage has its events, once, and its answer does not wait for the collection that it asks for: none ends
// before the test has the answer.
func TestCalls(t *testing.T) {
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	type work struct {
		name string
		call func() error
		want string // nothing if no collection follows
	}
	calls := func(s stage.Stage, kind stage.Kind, of ...work) []work {
		component := stagetest.Component(kind, stagetest.Model)
		load := func() error { return s.Load(ctx, stage.LoadRequest{Component: component}, nil) }
		evict := func(keep bool) func() error {
			return func() error {
				_, err := s.Evict(ctx, stage.EvictRequest{Component: component, Keep: keep})
				return err
			}
		}
		all := []work{
			{"info", func() error { _, err := s.Info(ctx); return err }, ""},
			{"plan", func() error {
				_, err := s.Plan(ctx, stage.PlanRequest{Turn: stagetest.Request(kind).Turn, Components: []string{component}})
				return err
			}, ""},
			{"load", load, ""},
		}
		all = append(all, of...)
		all = append(
			all,
			work{"evict and keep", evict(true), "model_changed"},
			work{"load what is warm", load, ""},
		)
		if styled := stagetest.StyledRequest(kind); len(styled.Components) > 1 {
			for _, name := range styled.Components[1:] {
				all = append(all, work{"load an adapter", func() error { return s.Load(ctx, stage.LoadRequest{Component: name}, nil) }, ""})
			}
			adapted := strings.Repeat("style_changed:", len(styled.Components)-1)
			done := map[stage.Kind]string{stage.KindEncoder: "prompt_encoded", stage.KindDenoiser: "denoise_done"}[kind]
			all = append(
				all,
				work{"adapted work", func() error { _, err := s.Work(ctx, styled, stage.Observer{}); return err }, "model_changed:" + adapted + "job_begin:" + done + ":style_done:job_end"},
				work{"evict an adapter and keep it", func() error {
					_, err := s.Evict(ctx, stage.EvictRequest{Component: styled.Components[1], Keep: true})
					return err
				}, "style_changed"},
				work{"drop it", func() error {
					_, err := s.Evict(ctx, stage.EvictRequest{Component: styled.Components[1]})
					return err
				}, "style_changed"},
				work{"evict", evict(false), "model_changed"},
			)
			return all
		}
		return append(all, work{"evict", evict(false), "model_changed:model_changed"})
	}
	for name, c := range map[string]struct {
		kind  stage.Kind
		turns []stage.WorkRequest
		want  []string
	}{
		"encoder": {
			stage.KindEncoder,
			[]stage.WorkRequest{
				stagetest.Request(stage.KindEncoder), stagetest.Request(stage.KindEncoder), stagetest.Of("nobody", stagetest.Request(stage.KindEncoder)),
			},
			[]string{"prompt_encoded", "prompt_encoded", ""},
		},
		"denoiser": {stage.KindDenoiser, []stage.WorkRequest{stagetest.Request(stage.KindDenoiser)}, []string{"denoise_done"}},
		"decoder":  {stage.KindDecoder, []stage.WorkRequest{stagetest.Request(stage.KindDecoder), stagetest.ImageRequest()}, []string{"vae_decoded", "vae_encoded"}},
	} {
		t.Run(name, func(t *testing.T) {
			told, answered := make(teller, 1), make(chan struct{})
			var process atomic.Int64
			collector := New(Options{
				Policy: Policy{0, Off}, Device: "cpu:0", Logger: slog.New(told), Read: func() Reading { return Reading{Process: process.Load()} },
				Adapter: stagetest.Adapter,
			})
			collector.free = func() {
				process.Add(-worthTelling) // else it is not told
				<-answered
			}
			script := &stagetest.Script{}
			script.Warm(stagetest.WarmBudget)
			fake := stagetest.New(c.kind, script)
			if err := fake.Load(ctx, stage.LoadRequest{Component: stagetest.ImageRequest().Components[0]}, nil); (err == nil) != (c.kind == stage.KindDecoder) {
				t.Fatal(err)
			}
			s := stagerpc.New(stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.Register(r, c.kind, fake, log) }, grpc.StatsHandler(collector)), c.kind)
			var turns []work
			for i, req := range c.turns {
				w := work{req.Turn, func() error { _, err := s.Work(ctx, req, stage.Observer{}); return err }, "job_begin:" + c.want[i] + ":job_end"}
				if c.want[i] == "" {
					w.name, w.want = "fail", "job_begin:job_end"
				}
				if i == 0 { // behind a load
					w.want = "model_changed:" + w.want
				}
				turns = append(turns, w)
			}
			for _, w := range calls(s, c.kind, turns...) {
				if err := w.call(); (err != nil) != (w.name == "fail") {
					t.Fatalf("%s: %v", w.name, err)
				}
				if w.want == "" {
					continue
				}
				answered <- struct{}{}
				// A call may begin before the collector hears of the end of the one that was answered before.
				if got := <-told; !slices.Equal(slices.Sorted(strings.SplitSeq(got, ":")), slices.Sorted(strings.SplitSeq(w.want, ":"))) {
					t.Errorf("%s: a collection for %s, want %s", w.name, got, w.want)
				}
			}
			select {
			case got := <-told:
				t.Errorf("one collection too many, for %s", got)
			default:
			}
		})
	}
}

// TestEveryMethod: a method of the stage services leaves memory behind, and has its events, or is listed here.
func TestEveryMethod(t *testing.T) {
	leaveNothing := []string{
		stagepb.StageService_GetStageInfo_FullMethodName, stagepb.StageService_PlanTurn_FullMethodName,
		stagepb.StageService_SettleComponent_FullMethodName, stagepb.StageService_Drain_FullMethodName,
		stagepb.StageService_Undrain_FullMethodName, stagepb.RuntimeService_GetPulse_FullMethodName,
	}
	methods := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("triptych.stage.v1alpha1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				methods++
				name := fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(j).Name())
				if _, collected := calls[name]; collected == slices.Contains(leaveNothing, name) {
					t.Errorf("%s: whether it leaves memory behind is said twice or not at all", name)
				}
			}
		}
		return true
	})
	if want := len(calls) + len(leaveNothing); methods != want {
		t.Errorf("the services have %d methods, %d are known here", methods, want)
	}
}

// TestTriggers: a turn has its events of old, or else one of its own name, and one of each kind of adapter that takes part.
func TestTriggers(t *testing.T) {
	c := New(Options{Adapter: func(component string) string {
		return map[string]string{"canny": "controlnet", "depth": "controlnet", "style": "lora", "face": "ip_adapter", "4x": "upscaler", "refiner": "refiner"}[stage.ModelOf(component)]
	}})
	for turn, want := range map[string]string{
		"encode xl/text_encoder xl/text_encoder_2":                                          "prompt_encoded",
		"encode xl/text_encoder style/text_encoder_lora xl/text_encoder_2":                  "prompt_encoded lora_done",
		"encode_image_prompt face/image_encoder":                                            "ip_adapter_done",
		"denoise xl/unet":                                                                   "denoise_done",
		"denoise xl/unet canny/controlnet depth/controlnet face/ip_adapter style/unet_lora": "denoise_done controlnet_done ip_adapter_done lora_done",
		"refine_encode refiner/text_encoder_2":                                              "prompt_encoded",
		"refine refiner/unet":                                                               "denoise_done",
		"encode_image xl/vae.encoder":                                                       "vae_encoded",
		"decode xl/vae.decoder":                                                             "vae_decoded",
		"decode xl/vae.decoder 4x/upscaler":                                                 "vae_decoded upscale_done",
		"upscale 4x/upscaler":                                                               "upscale_done",
		"enlarge xl/vae.decoder xl/vae.encoder 4x/upscaler":                                 "vae_decoded vae_encoded upscale_done",
		"hires_denoise xl/unet canny/controlnet":                                            "denoise_done controlnet_done",
		"hires_decode xl/vae.decoder":                                                       "vae_decoded",
		"restore faces/generator":                                                           "restore_done",
		"nothing":                                                                           "nothing_done",
	} {
		words := strings.Fields(turn)
		var got []string
		for _, e := range c.worked(words[0], words[1:]) {
			got = append(got, string(e.Trigger))
			if e.Force {
				t.Errorf("%s: %s collects whatever is in use", turn, e.Trigger)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s is told as %q, want %q", turn, got, want)
		}
	}
	for component, want := range map[string]Trigger{"xl/unet": ModelChanged, "style/unet_lora": "lora_changed", "canny/controlnet": "controlnet_changed", "4x/upscaler": "upscaler_changed"} {
		if got := c.changed(component); len(got) != 1 || got[0] != (Event{want, true}) {
			t.Errorf("a change of %s is told as %v, want %s", component, got, want)
		}
	}
}
