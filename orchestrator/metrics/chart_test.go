package metrics

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// described are the labels of every metric, by its name.
func described(t *testing.T) map[string][]string {
	t.Helper()
	m := New(Sources{})
	descriptions := make(chan *prometheus.Desc)
	go func() {
		m.registry.Describe(descriptions)
		close(descriptions)
	}()
	form := regexp.MustCompile(`^Desc\{fqName: "(\w+)".*variableLabels: \{(.*)\}\}$`)
	all := map[string][]string{}
	for d := range descriptions {
		found := form.FindStringSubmatch(d.String())
		if found == nil {
			t.Fatalf("a description reads %s", d)
		}
		all[found[1]] = strings.Split(found[2], ",")
	}
	return all
}

// Alerts, the dashboard and the autoscaler of the chart use metrics that there are, with labels that they have.
func TestChartsMetrics(t *testing.T) {
	all := described(t)
	var labels []string // of any
	for _, l := range all {
		labels = append(labels, l...)
	}
	labels = append(labels, "le", "namespace", "pod") // of a histogram, and what a scrape adds
	chart := filepath.Join("..", "..", "charts", "triptych")
	for _, file := range []string{"rules/triptych.yaml", "dashboards/triptych.json", "values.yaml"} {
		data, err := os.ReadFile(filepath.Join(chart, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), `\"`, `"`)
		used := regexp.MustCompile(`(triptych_\w+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(text, -1)
		if len(used) == 0 {
			t.Errorf("%s uses no metric", file)
		}
		for _, u := range used {
			has, ok := all[u[1]]
			if !ok {
				has, ok = all[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(u[1], "")]
			}
			if !ok {
				t.Errorf("%s uses %s, which there is not", file, u[1])
				continue
			}
			for _, match := range regexp.MustCompile(`(\w+)\s*(?:=~|!=|!~|=)\s*"`).FindAllStringSubmatch(u[2], -1) {
				if l := match[1]; l != "namespace" && l != "pod" && !slices.Contains(has, l) {
					t.Errorf("%s uses %s with the label %s, and it has %q", file, u[1], l, has)
				}
			}
		}
		for _, by := range regexp.MustCompile(`\bby \(([\w, ]*)\)`).FindAllStringSubmatch(text, -1) {
			for l := range strings.SplitSeq(by[1], ",") {
				if l = strings.TrimSpace(l); !slices.Contains(labels, l) {
					t.Errorf("%s sums by the label %q, which no metric has", file, l)
				}
			}
		}
	}
}
