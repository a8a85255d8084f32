//go:build linux

package e2e

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

var collection = regexp.MustCompile(`GC: utilization=\{'gpu': \d+, 'ram': \d+, 'threshold': (\d+)\} .* device=cpu:0 fn=(\S+) .*stage=(\w+) reason="?([a-z ]+?)"? released_bytes=`)

// collections are those that the log of the processes tells, each once: stage, events in order, threshold and reason.
func collections(s *server) (all []string) {
	for line := range strings.Lines(s.log.String()) {
		if m := collection.FindStringSubmatch(line); m != nil {
			events := strings.Split(m[2], ":")
			slices.Sort(events) // a call may begin before the one answered before it is told to have ended
			all = append(all, m[3]+" "+strings.Join(events, ",")+" at "+m[1]+": "+m[4])
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestRelease: every stage of an image tells of one collection where the threshold has every event collect, and of the one
// that a load asks for where it does not.
func TestRelease(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"always": {[]string{"--low-memory", "off", "--release-threshold", "0"}, []string{
			"decoder job_begin,job_end,model_changed,vae_decoded at 0: forced",
			"denoiser denoise_done,job_begin,job_end,model_changed at 0: forced",
			"encoder job_begin,job_end,model_changed,prompt_encoded at 0: forced",
			"decoder job_begin,job_end,vae_decoded at 0: threshold",
			"denoiser denoise_done,job_begin,job_end at 0: threshold",
			"encoder job_begin,job_end,prompt_encoded at 0: threshold",
		}},
		"one stage has little": {[]string{"--low-memory", "off", "--release-threshold", "100", "--low-memory", "decoder=on"}, []string{
			"decoder job_begin,job_end,model_changed,vae_decoded at 0: forced",
			"decoder job_begin,job_end,vae_decoded at 0: low memory",
			"denoiser model_changed at 100: forced",
			"encoder model_changed at 100: forced",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t, append(c.args, "--log-level", "debug")...) // else only those that freed something are told
			for range 3 {                                         // the collections behind the last one may end with the processes
				if _, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(2))}, nil); err != nil {
					t.Fatal(err)
				}
			}
			wantReleases(t, s.addresses["decoder"])
			s.stop(t)
			slices.Sort(c.want)
			if got := collections(s); !slices.Equal(got, c.want) {
				t.Errorf("collections\n%s\nwant\n%s\nlog:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"), s.log)
			}
		})
	}
}

// triggers counts the events of all collections that the log of the processes tells, by stage.
func triggers(s *server) map[string]int {
	out := map[string]int{}
	for line := range strings.Lines(s.log.String()) {
		if m := collection.FindStringSubmatch(line); m != nil {
			for event := range strings.SplitSeq(m[2], ":") {
				out[m[3]+" "+event]++
			}
		}
	}
	return out
}

// TestReleaseOfAdapters: what adapters do, and that they are loaded and evicted, is an event, once, in the stage where it happens.
func TestReleaseOfAdapters(t *testing.T) {
	models := adapterModels(t) + "," + upscalerFolder(t, "four", filepath.Join(pictureGoldens, "esrgan", "x4-realsr.safetensors"))
	always := []string{"--models", models, "--low-memory", "off", "--release-threshold", "0", "--log-level", "debug"}
	r := controlled(t)
	r.options["ip_adapter"] = &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Text{Text: "face:0.5"}}
	r.options["loras"] = &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Text{Text: "style:0.8"}}
	r.options["upscaler"] = &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Text{Text: "four"}}
	r.inputs["image_prompt"] = "photo-90x70.png"
	plain := &triptychv1alpha1.GenerationSpec{Model: r.Model, Prompt: "fox", Steps: ptr(int32(1))}
	refined := goldenRun(t, "xl-more", "second-euler").with(map[string]string{"refiner": "tiny-refiner:0.6"}, nil)

	s := up(t, always...)
	budget := int64(0)
	for _, spec := range []*triptychv1alpha1.GenerationSpec{r.spec(t), refined.spec(t), plain, plain} { // the last collections may end with the processes
		events, err := s.generate(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range events[len(events)-1].GetCompleted().GetStages() {
			budget = max(budget, u.GetWeightsBytes()+u.GetScratchBytes())
		}
	}
	s.stop(t)
	got := triggers(s)
	for event, want := range map[string]int{
		"encoder ip_adapter_done": 1, "encoder ip_adapter_changed": 1, "encoder lora_done": 1, "encoder lora_changed": 1, "denoiser lora_done": 1, "denoiser lora_changed": 1,
		"denoiser controlnet_done": 1, "denoiser controlnet_changed": 2, "denoiser ip_adapter_done": 1, "denoiser ip_adapter_changed": 1,
		"decoder upscale_done": 1, "decoder upscaler_changed": 1,
		"encoder refiner_changed": 1, "denoiser refiner_changed": 1,
	} {
		if got[event] != want {
			t.Errorf("%s %d times, want %d", event, got[event], want)
		}
	}
	for event, least := range map[string]int{"encoder prompt_encoded": 4, "denoiser denoise_done": 4, "decoder vae_decoded": 3} { // a refined request has two prompts and denoises
		if n := got[event]; n < least || n > least+1 {
			t.Errorf("%s %d times, want %d or one more", event, n, least)
		}
	}
	if t.Failed() {
		t.Logf("all: %v", got)
	}

	s = up(t, append(always, "--memory-budget", strconv.FormatInt(budget, 10))...)
	watch, err := triptychv1alpha1.NewResidencyServiceClient(s.conn).WatchResidency(t.Context(), &triptychv1alpha1.WatchResidencyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for _, spec := range []*triptychv1alpha1.GenerationSpec{r.spec(t), refined.spec(t), r.spec(t), plain, plain} {
		if _, err := s.generate(t.Context(), spec, nil); err != nil {
			t.Fatal(err)
		}
		for ended := false; !ended; {
			news, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			d := news.GetDecision().GetEvent()
			loaded := d.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_LOADED
			if evicted := d.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_EVICTED; loaded || evicted {
				if model, _, _ := strings.Cut(d.GetComponent(), "/"); strings.HasPrefix(model, "control-") {
					want["denoiser controlnet_changed"]++
				} else if model == "four" {
					want["decoder upscaler_changed"]++
				} else if model == "style" {
					want[d.GetStage()+" lora_changed"]++
				}
			}
			ended = d.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE && d.GetStage() == "decoder"
		}
	}
	s.stop(t)
	got = triggers(s)
	if want["denoiser controlnet_changed"] < 6 || want["denoiser lora_changed"] < 3 {
		t.Errorf("two ControlNets and a LoRA were loaded and evicted %v times, want 6 and 3 at least: twice and once each", want)
	}
	for event, n := range want {
		if got[event] != n {
			t.Errorf("%s %d times, and %d were loaded and evicted", event, got[event], n)
		}
	}
	t.Logf("loaded and evicted %v", want)
}

// wantReleases asks a service for its counts. Behind three images there are those of two at least.
func wantReleases(t *testing.T, address string) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	info, err := stagepb.NewStageServiceClient(conn).GetStageInfo(t.Context(), &stagepb.GetStageInfoRequest{})
	if err != nil || info.GetReleases() < 2 || info.GetReleases() > 3 || info.GetReleasedBytes() < 1<<16 {
		t.Errorf("%d releases of %d bytes (%v)", info.GetReleases(), info.GetReleasedBytes(), err)
	}
}

// TestReleaseFlags: what no stage could do is refused where it is said.
func TestReleaseFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"up", "--release-threshold", "101"}, `"101" is not a threshold, expected a percentage from 0 to 100`},
		{[]string{"decoder", "--release-threshold", "decoder=x"}, `"x" is not a threshold`},
		{[]string{"encoder", "--low-memory", "yes"}, `"yes" is not a choice, expected auto, on or off`},
		{[]string{"denoiser", "--low-memory", "encoder=on"}, "expected denoiser=auto|on|off"},
		{[]string{"denoiser", "--release-threshold", "encoder=0"}, "expected denoiser=PERCENT"},
	} {
		if got := runCommand(t, c.args...); got.code != 2 || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%v: exit code %d: %s", c.args, got.code, got.stderr)
		}
	}
}
