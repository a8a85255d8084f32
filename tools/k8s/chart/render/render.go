package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
)

// A renderer renders one set after another.
type renderer struct {
	chart  *chart.Chart
	checks *checker
}

func newRenderer(dir string, checks *checker) (*renderer, error) {
	c, err := loader.Load(dir)
	if err != nil {
		return nil, err
	}
	return &renderer{c, checks}, nil
}

// render never fails: what goes wrong is the result.
func (r *renderer) render(s set) result {
	values, err := r.values(s)
	if err != nil {
		return result{Name: s.Name, Error: err.Error()}
	}
	files, err := r.files(values)
	if err != nil {
		return result{Name: s.Name, Error: err.Error()}
	}
	done := result{Name: s.Name}
	if s.Text {
		done.Values, _ = values["Values"].(common.Values)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if path.Base(name) == "NOTES.txt" {
			if s.Text {
				done.Notes = files[name]
			}
			delete(files, name)
		}
	}
	hooks, manifests, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		done.Error = err.Error()
		return done
	}
	var all []*checked
	add := func(source, text string) {
		o := r.checks.object(text)
		shown := shown{Source: source, Kind: o.kind, Name: o.name}
		if s.Text {
			shown.Text = text
		}
		done.Objects = append(done.Objects, shown)
		for _, p := range o.problems {
			done.Problems = append(done.Problems, fmt.Sprintf("%s: %s %s: %s", source, o.kind, o.name, p))
		}
		all = append(all, o)
	}
	for _, m := range manifests {
		add(m.Name, m.Content)
	}
	for _, h := range hooks {
		add(h.Path, h.Manifest)
	}
	done.Problems = append(done.Problems, together(all)...)
	return done
}

// values are what templates are given, once they have passed the chart's schema.
func (r *renderer) values(s set) (common.Values, error) {
	if err := chartutil.ValidateReleaseName(s.Release); err != nil {
		return nil, fmt.Errorf("release name %q: %w", s.Release, err)
	}
	capabilities := common.DefaultCapabilities.Copy()
	if s.KubeVersion != "" {
		version, err := common.ParseKubeVersion(s.KubeVersion)
		if err != nil {
			return nil, err
		}
		capabilities.KubeVersion = *version
	}
	capabilities.APIVersions = slices.Concat(capabilities.APIVersions, s.APIVersions)
	if want := r.chart.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, capabilities.KubeVersion.String()) {
		return nil, fmt.Errorf("chart requires kubeVersion: %s which is incompatible with Kubernetes %s", want, capabilities.KubeVersion.Version)
	}
	given := map[string]any{}
	for _, name := range s.Files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		values, err := loader.LoadValues(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		given = loader.MergeMaps(given, values)
	}
	return util.ToRenderValues(r.chart, loader.MergeMaps(given, s.Values), common.ReleaseOptions{
		Name: s.Release, Namespace: cmp.Or(s.Namespace, "default"), Revision: 1, IsInstall: !s.Upgrade, IsUpgrade: s.Upgrade,
	}, capabilities)
}

// files are the rendered templates, as helm template makes them.
func (r *renderer) files(values common.Values) (map[string]string, error) {
	files, err := engine.Render(r.chart, values)
	if err != nil {
		return nil, err
	}
	for name, text := range files {
		if strings.TrimSpace(text) == "" {
			delete(files, name)
		}
	}
	return files, nil
}
