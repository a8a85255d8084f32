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
	script := &stagetest.Script{}
	script.Warm(stagetest.WarmBudget)
	encoder, denoiser, decoder := stagetest.NewEncoder(script), stagetest.NewDenoiser(script), stagetest.NewDecoder(script)
	type work struct {
		name string
		call func() error
		want string // nothing if no collection follows
	}
	resident := func(s stage.Resident, of ...work) []work {
		load := func() error { return s.Load(ctx, stage.LoadRequest{Model: stagetest.Model}, nil) }
		evict := func(keep bool) func() error {
			return func() error {
				_, err := s.Evict(ctx, stage.EvictRequest{Model: stagetest.Model, Keep: keep})
				return err
			}
		}
		all := []work{
			{"info", func() error { _, err := s.Info(ctx); return err }, ""},
			{"plan", func() error {
				_, err := s.Plan(ctx, stage.PlanRequest{Model: stagetest.Model, Batch: 1, LatentHeight: 4, LatentWidth: 4})
				return err
			}, ""},
			{"load", load, ""},
		}
		all = append(all, of...)
		return append(
			all,
			work{"evict and keep", evict(true), "model_changed"},
			work{"load what is warm", load, ""},
			work{"evict", evict(false), "model_changed:model_changed"},
		)
	}
	var image stage.Image
	for name, c := range map[string]struct {
		register func(grpc.ServiceRegistrar)
		calls    func(*grpc.ClientConn) []work
	}{
		"encoder": {
			func(s grpc.ServiceRegistrar) { stagerpc.RegisterEncoder(s, encoder, log) },
			func(conn *grpc.ClientConn) []work {
				e := stagerpc.NewEncoder(conn)
				encode := func(model string) func() error {
					return func() error {
						_, err := e.Encode(ctx, stage.EncodeRequest{Model: model, Prompts: stagetest.Prompts()})
						return err
					}
				}
				return resident(
					e,
					work{"encode", encode(stagetest.Model), "model_changed:job_begin:prompt_encoded:job_end"},
					work{"encode again", encode(stagetest.Model), "job_begin:prompt_encoded:job_end"},
					work{"fail", encode("nobody"), "job_begin:job_end"},
				)
			},
		},
		"denoiser": {
			func(s grpc.ServiceRegistrar) { stagerpc.RegisterDenoiser(s, denoiser, log) },
			func(conn *grpc.ClientConn) []work {
				d := stagerpc.NewDenoiser(conn)
				return resident(d, work{"denoise", func() error {
					_, err := d.Denoise(ctx, stagetest.DenoiseRequest(), stage.DenoiseObserver{})
					return err
				}, "model_changed:job_begin:denoise_done:job_end"})
			},
		},
		"decoder": {
			func(s grpc.ServiceRegistrar) { stagerpc.RegisterDecoder(s, decoder, log) },
			func(conn *grpc.ClientConn) []work {
				d := stagerpc.NewDecoder(conn)
				return resident(
					d,
					work{"decode", func() (err error) {
						image, err = d.Decode(ctx, stage.DecodeRequest{Model: stagetest.Model, Latent: stagetest.Latent()})
						return err
					}, "model_changed:job_begin:vae_decoded:job_end"},
					work{"encode an image", func() error {
						_, err := d.EncodeImage(ctx, stage.EncodeImageRequest{Model: stagetest.Model, Data: image.Data})
						return err
					}, "job_begin:vae_encoded:job_end"},
				)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			told, answered := make(teller, 1), make(chan struct{})
			var process atomic.Int64
			collector := New(Options{
				Policy: Policy{0, Off}, Device: "cpu:0", Logger: slog.New(told), Read: func() Reading { return Reading{Process: process.Load()} },
			})
			collector.free = func() {
				process.Add(-worthTelling) // else it is not told
				<-answered
			}
			for _, w := range c.calls(stagetest.Connect(t, c.register, grpc.StatsHandler(collector))) {
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
		stagepb.StageService_GetStageInfo_FullMethodName, stagepb.StageService_PlanComponent_FullMethodName,
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
