//go:build linux

package suite

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSamplesOf(t *testing.T) {
	for line, want := range map[string]*sample{
		`triptych_backlog_seconds{kind="denoiser",model=""} 12.5`: {name: "triptych_backlog_seconds", labels: map[string]string{"kind": "denoiser", "model": ""}, value: 12.5},
		`triptych_peak_bytes{device="pod a/cpu:0"} 2.4e+07`:       {name: "triptych_peak_bytes", labels: map[string]string{"device": "pod a/cpu:0"}, value: 2.4e7},
		`go_goroutines 42`: {name: "go_goroutines", labels: map[string]string{}, value: 42},
		`# HELP go_goroutines Number of goroutines that exist.`: nil,
		``: nil,
	} {
		got, err := samplesOf(strings.NewReader(line + "\n"))
		if err != nil || len(got) > 1 || (len(got) == 1) != (want != nil) {
			t.Errorf("%q: read: %v, %v", line, got, err)
			continue
		}
		if want != nil {
			if diff := cmp.Diff(*want, got[0], cmp.AllowUnexported(sample{})); diff != "" {
				t.Errorf("%q: %s", line, diff)
			}
		}
	}
}

func TestSelected(t *testing.T) {
	s := sample{labels: map[string]string{"kind": "denoiser", "model": "starter"}}
	for selector, want := range map[string]bool{
		"": true, "kind=denoiser": true, "kind=encoder": false, "kind=denoiser,model=starter": true, "kind=denoiser,model=sd15": false,
	} {
		if got := s.selected(selector); got != want {
			t.Errorf("%q: selected: %v", selector, got)
		}
	}
}

func TestWith(t *testing.T) {
	before := values{"stages": values{"denoiser": values{"replicas": 1}}, "tls": values{"mode": "none"}}
	got := with(with(before, "stages.denoiser.replicas", 2), "stages.encoder.replicas", 3)
	want := values{"stages": values{"denoiser": values{"replicas": 2}, "encoder": values{"replicas": 3}}, "tls": values{"mode": "none"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if before["stages"].(values)["denoiser"].(values)["replicas"] != 1 {
		t.Error("the values it was made from have changed")
	}
}

// Themes have different names, which become names of namespaces, and follow each other by what they run on.
func TestThemes(t *testing.T) {
	seen := map[string]bool{}
	last := fakeNodes
	for _, th := range themes() {
		if seen[th.name] {
			t.Errorf("there are two themes called %s", th.name)
		}
		seen[th.name] = true
		if th.needs < last {
			t.Errorf("%s needs less than the theme before it: fake nodes do not come back", th.name)
		}
		last = th.needs
	}
}
