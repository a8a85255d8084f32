package charttest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Helm's own look at the chart, with its values and with those of every example.
func TestLint(t *testing.T) {
	dir := chart(t)
	lint := func(name string, args ...string) {
		out, said, err := program(t, "helm", append([]string{"lint", "--strict", "--kube-version", KubeVersion, dir}, args...)...)
		if err != nil {
			verdict(t, name, "helm lint: "+out+said)
			return
		}
		verdict(t, name)
	}
	lint("values.yaml")
	examples, err := Examples(dir)
	broken(t, err)
	for _, e := range examples {
		lint(e.Name, "-f", e.Files[0])
	}
}

// The suites of charts/triptych/tests. helm-unittest succeeds where it finds none.
func TestTemplates(t *testing.T) {
	dir := chart(t)
	out, said, err := program(t, "helm-unittest", "--strict", dir)
	_ = os.Remove(filepath.Join(dir, "tests", "__snapshot__")) // it is made, and stays empty
	var problems []string
	if err != nil {
		problems = append(problems, out+said)
	}
	passed := int64(0)
	if ran := regexp.MustCompile(`Tests: .*?(\d+) passed`).FindStringSubmatch(out); ran != nil {
		_, err := fmt.Sscan(ran[1], &passed)
		broken(t, err)
		tally.passed.Add(passed)
	}
	if passed == 0 {
		problems = append(problems, "no test ran: "+out+said)
	}
	verdict(t, "helm-unittest", problems...)
}

// Every example makes sound objects, the same as helm template does and the same each time.
func TestExamples(t *testing.T) {
	dir := chart(t)
	sets, err := Examples(dir)
	broken(t, err)
	var names []string
	for _, s := range sets {
		names = append(names, s.Name)
	}
	for _, want := range []string{"laptop", "one-gpu-shared", "gpu-per-stage", "two-denoiser-pools", "scale-to-zero", "mtls"} {
		if !slices.Contains(names, want) {
			verdict(t, want, "there is no such example")
		}
	}
	sets = append(sets, Set{Name: "values.yaml", Release: "triptych", KubeVersion: KubeVersion, Text: true})
	results, err := Render(t.Context(), dir, sets)
	broken(t, err)
	for i, r := range results {
		verdict(t, r.Name, wrong(r)...)
		args := []string{"template", "triptych", dir, "--kube-version", KubeVersion}
		for _, file := range sets[i].Files {
			args = append(args, "-f", file)
		}
		first, said, err := program(t, "helm", args...)
		if err != nil {
			verdict(t, r.Name, "helm template: "+said)
			continue
		}
		second, _, err := program(t, "helm", args...)
		broken(t, err)
		verdict(t, r.Name+", twice", differs("helm template made it", first, "and then", second)...)
		verdict(t, r.Name+", by helm", differs("helm template made", first, "and this test", manifest(r))...)
	}
}

// wrong tells why a result is none that could be installed.
func wrong(r Result) []string {
	if r.Error != "" {
		return []string{r.Error}
	}
	problems := slices.Clone(r.Problems)
	if r.Count("Pod") != 1 {
		problems = append(problems, "helm test has nothing to run")
	}
	return problems
}

// manifest writes the objects as helm template does.
func manifest(r Result) string {
	var b strings.Builder
	for _, o := range r.Objects {
		fmt.Fprintf(&b, "---\n# Source: %s\n%s\n", o.Source, o.Text)
	}
	return b.String()
}

// differs compares two manifests line by line, but for empty lines.
func differs(one, a, other, b string) []string {
	lines := func(s string) []string {
		return slices.DeleteFunc(strings.Split(s, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
	}
	first, second := lines(a), lines(b)
	for i := range max(len(first), len(second)) {
		have, want := "nothing", "nothing"
		if i < len(first) {
			have = first[i]
		}
		if i < len(second) {
			want = second[i]
		}
		if have != want {
			return []string{fmt.Sprintf("line %d: %s %q, %s %q", i+1, one, have, other, want)}
		}
	}
	return nil
}

// Every mode that its parts allow makes sound objects, as many of each kind as it should; every other one is refused.
func TestModes(t *testing.T) {
	dir := chart(t)
	modes := Modes()
	var sets []Set
	for _, m := range modes {
		sets = append(sets, m.Set)
	}
	results, err := Render(t.Context(), dir, sets)
	broken(t, err)
	for i, r := range results {
		m := modes[i]
		if m.Refused != "" {
			if !strings.Contains(r.Error, m.Refused) {
				verdict(t, m.Name, fmt.Sprintf("expected the refusal %q, got %q and %d objects", m.Refused, r.Error, len(r.Objects)))
				continue
			}
			verdict(t, m.Name)
			continue
		}
		problems := wrong(r)
		for kind, n := range m.Objects {
			if got := r.Count(kind); got != n && r.Error == "" {
				problems = append(problems, fmt.Sprintf("%d objects of kind %s, expected %d", got, kind, n))
			}
		}
		verdict(t, m.Name, problems...)
	}
}
