// Package charttest renders charts/triptych with sets of values and tells what is wrong with the objects that it makes.
//
// It runs programs that tools/k8s/tool builds, and imports nothing but that and the standard library.
package charttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/triptych-serving/triptych/tools/k8s/tool"
)

// KubeVersion is that of the cluster that objects are made for, and of the schemas that they are checked by.
const KubeVersion = "1.36.3"

// A Set is what is given to the chart.
type Set struct {
	Name        string         // in results and messages
	Release     string         // the release's name
	Namespace   string         // default if it is empty
	KubeVersion string         // of the cluster, such as 1.36.3
	APIVersions []string       // of custom resources that the cluster is to have
	Upgrade     bool           // of a release that there is, rather than an install
	Files       []string       // of values, over the chart's own
	Values      map[string]any // over those
	Text        bool           // the result is to have texts, notes and values
}

// A Result is what the chart made of a set.
type Result struct {
	Name     string
	Error    string   // why there are no objects: the schema's or a guard's words
	Objects  []Object // in the order in which they are installed, hooks last
	Problems []string // what is wrong with the objects, one by one and together
	Notes    string
	Values   map[string]any // all of them, the chart's own included
}

// An Object is one that the chart made.
type Object struct {
	Source     string // the template, such as triptych/templates/stage-hpa.yaml
	Kind, Name string
	Text       string
}

// Count is the number of objects of a kind.
func (r Result) Count(kind string) (n int) {
	for _, o := range r.Objects {
		if o.Kind == kind {
			n++
		}
	}
	return n
}

// Render renders a chart's folder with every set, in their order. An error is one of the programs that do it; what is wrong
// with a set or an object is in its result.
func Render(ctx context.Context, chart string, sets []Set) ([]Result, error) {
	render, err := tool.Path(ctx, "render")
	if err != nil {
		return nil, err
	}
	schemas, err := Schemas(ctx)
	if err != nil {
		return nil, err
	}
	var in, out bytes.Buffer
	for _, s := range sets {
		if err := json.NewEncoder(&in).Encode(s); err != nil {
			return nil, err
		}
	}
	cmd := exec.CommandContext(ctx, render, "-chart", chart, "-schemas", schemas)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	results := make([]Result, 0, len(sets))
	for d := json.NewDecoder(&out); ; {
		var r Result
		err := d.Decode(&r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	if len(results) != len(sets) {
		return nil, fmt.Errorf("render: %d results of %d sets", len(results), len(sets))
	}
	return results, nil
}

// Schemas is the folder of the schemas, which are made once for each edition of the program that makes them.
func Schemas(ctx context.Context) (string, error) {
	program, err := tool.Path(ctx, "schemas")
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	cache, err := tool.Cache()
	if err != nil {
		return "", err
	}
	edition := sha256.Sum256(data)
	dir := filepath.Join(cache, "schemas-"+hex.EncodeToString(edition[:6]))
	unlock, err := tool.Lock(filepath.Join(cache, ".schemas.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	next := dir + ".next" // what is under its own name is whole
	if err := os.RemoveAll(next); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, "-into", next)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("schemas: %w\n%s", err, bytes.TrimSpace(out))
	}
	return dir, os.Rename(next, dir)
}

// Examples is a set for each example of a chart, by the name of its file.
func Examples(chart string) ([]Set, error) {
	files, err := filepath.Glob(filepath.Join(chart, "examples", "*.yaml"))
	if err != nil {
		return nil, err
	}
	sets := make([]Set, 0, len(files))
	for _, file := range files {
		sets = append(sets, Set{
			Name: strings.TrimSuffix(filepath.Base(file), ".yaml"), Release: "triptych", KubeVersion: KubeVersion, Files: []string{file}, Text: true,
		})
	}
	return sets, nil
}
