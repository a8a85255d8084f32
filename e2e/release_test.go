//go:build linux

package e2e

import (
	"regexp"
	"slices"
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
