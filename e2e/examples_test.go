//go:build linux

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestExamples: what `up` tells to try works as it is, with whatever models there are; and the only model is the default.
func TestExamples(t *testing.T) {
	for _, c := range []struct{ models, named string }{
		{"testdata/golden/tiny-sd15", ""},
		{"models,testdata/golden/tiny-sd15", "starter"},
		{"testdata/golden/tiny-v,testdata/golden/tiny-sd15", "tiny-sd15"},
	} {
		s := up(t, "--models", c.models)
		if len(s.examples) != 2 {
			t.Fatalf("%s: examples %q", c.models, s.examples)
		}
		dir := t.TempDir()
		sh := exec.CommandContext(t.Context(), "sh", "-c", s.examples[0]+" --steps 1")
		sh.Dir, sh.Env = dir, []string{"PATH=" + filepath.Dir(program)}
		if out, err := sh.CombinedOutput(); err != nil || len(values(t, filepath.Join(dir, "face.png"))) == 0 {
			t.Errorf("%s: %s: %v, %s", c.models, s.examples[0], err, out)
		}
		sh = exec.CommandContext(t.Context(), "sh", "-c", `grpcurl() { [ "$4 $5" = "`+s.addresses["orchestrator"]+` triptych.v1alpha1.GenerationService/Generate" ] && printf %s "$3"; }; `+s.examples[1])
		data, err := sh.Output()
		if err != nil {
			t.Fatalf("%s: %v", s.examples[1], err)
		}
		var req triptychv1alpha1.GenerateRequest
		if err := protojson.Unmarshal(data, &req); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		req.Spec.Steps = ptr(int32(1))
		if _, err := s.generate(t.Context(), req.GetSpec(), nil); err != nil || req.GetSpec().GetModel() != c.named {
			t.Errorf("%s: %s: %v", c.models, data, err)
		}
		got := runCommand(t, "generate", "fox", "--steps", "1", "--server", s.addresses["orchestrator"], "-o", filepath.Join(dir, "x.png"))
		if c.named == "tiny-sd15" { // and no default
			if got.code != 2 || !strings.Contains(got.stderr, "tiny-sd15, tiny-v") {
				t.Errorf("%s: exit code %d: %s", c.models, got.code, got.stderr)
			}
		} else if got.code != 0 {
			t.Errorf("%s: exit code %d: %s", c.models, got.code, got.stderr)
		}
		s.stop(t)
	}
}
