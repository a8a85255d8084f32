//go:build linux

// Package suite checks the chart and the program on a real Kubernetes: what fake nodes suffice for
// first, then what takes containers that run, then KEDA. It knows them as an operator does, by helm,
// kubectl, the API server and the public API of Triptych.
package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/tools/k8s/cluster"
)

// Options say what is checked and with what.
type Options struct {
	Root     string         // the repository
	Chart    string         // the chart's folder
	Dir      string         // for the cluster's files
	Tools    cluster.Tools  // what the cluster is made of
	Triptych string         // the program, to make reference pictures with
	Images   []string       // archives for the real node
	Version  string         // tag of Triptych's image among them
	Only     *regexp.Regexp // checks whose "theme: name" matches
	Quick    bool           // loads of seconds instead of minutes
	Keep     bool           // leave the namespace of a theme with a failed check as it is
	Log      io.Writer
}

// A Suite is one run of the checks.
type Suite struct {
	Options
	cluster        *cluster.Cluster
	defined        bool // custom resources
	passed, failed int
	measured       []string
	mutex          sync.Mutex
	references     map[picture][]byte
}

// A theme is a number of checks on one installation, in a namespace of its own.
type theme struct {
	name   string
	needs  need
	setup  func(context.Context, *T) error // if it fails, so do all checks
	checks []check
}

// A check fails with an error. Each sees what those before it left.
type check struct {
	name string
	run  func(context.Context, *T) error
}

// need is what a theme runs on.
type need int

const (
	fakeNodes need = iota
	realNode
	autoscalers
)

// A T is a theme at work.
type T struct {
	*Suite
	theme     string
	Namespace string
	cleanups  []func(context.Context) error
}

// Run brings up what the chosen themes need, runs them, and returns how many checks passed and failed.
// An error is of the cluster itself.
func Run(ctx context.Context, o Options) (passed, failed int, err error) {
	s := &Suite{Options: o, references: map[picture][]byte{}}
	begun := time.Now()
	chosen := s.chosen()
	if len(chosen) == 0 {
		return 0, 0, fmt.Errorf("no check is called like %s", o.Only)
	}
	have := need(-1)
	for _, th := range chosen {
		if err := s.provide(ctx, have, th.needs); err != nil {
			return s.passed, s.failed + 1, err
		}
		have = th.needs
		s.run(ctx, th)
		if ctx.Err() != nil {
			return s.passed, s.failed, errors.New("interrupted")
		}
		if ended := s.cluster.Ended(); len(ended) > 0 {
			return s.passed, s.failed, fmt.Errorf("of the cluster, these have ended: %v\n%s", ended, s.cluster.Log(ended[0], 3000))
		}
	}
	if len(s.measured) > 0 {
		fmt.Fprintf(o.Log, "\nmeasured:\n")
		for _, line := range s.measured {
			fmt.Fprintln(o.Log, "  "+line)
		}
	}
	fmt.Fprintf(o.Log, "\n%d s in all\n", int(time.Since(begun).Seconds()))
	return s.passed, s.failed, nil
}

// Names are those of all checks.
func Names() (names []string) {
	for _, th := range themes() {
		for _, c := range th.checks {
			names = append(names, th.name+": "+c.name)
		}
	}
	return names
}

// Needs names what the chosen checks run on, beside a control plane.
func Needs(only *regexp.Regexp) []string {
	s := &Suite{Options: Options{Only: only}}
	var needs []string
	for _, th := range s.chosen() {
		switch th.needs {
		case fakeNodes:
			needs = append(needs, "fake nodes")
		case autoscalers:
			needs = append(needs, "real node", "autoscalers")
		case realNode:
			needs = append(needs, "real node")
		}
	}
	slices.Sort(needs)
	return slices.Compact(needs)
}

// Up brings up a cluster with fake nodes, or with a real one.
func Up(ctx context.Context, o Options, node bool) error {
	needs := fakeNodes
	if node {
		needs = realNode
	}
	return (&Suite{Options: o}).provide(ctx, -1, needs)
}

// chosen are the themes with the checks that were asked for. A check takes those before it along.
func (s *Suite) chosen() (chosen []theme) {
	for _, th := range themes() {
		last := -1
		for i, c := range th.checks {
			if s.Only == nil || s.Only.MatchString(th.name+": "+c.name) {
				last = i
			}
		}
		if last >= 0 {
			th.checks = th.checks[:last+1]
			chosen = append(chosen, th)
		}
	}
	return chosen
}

// provide brings up what a theme needs beside what there is.
func (s *Suite) provide(ctx context.Context, have, needs need) error {
	step := func(name string, f func() error) error {
		begun := time.Now()
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(s.Log, "up   %6.1fs  %s\n", time.Since(begun).Seconds(), name)
		return nil
	}
	if have < 0 {
		err := step("control plane: etcd, API server, controllers, scheduler", func() (err error) {
			s.cluster, err = cluster.Up(ctx, s.Dir, s.Tools)
			return err
		})
		if err != nil {
			return err
		}
	}
	if needs != realNode && !s.defined {
		if err := step("resource definitions of KEDA, cert-manager and the Prometheus operator", func() error { return s.cluster.AddDefinitions(ctx) }); err != nil {
			return err
		}
		s.defined = true
	}
	if needs == fakeNodes && have != fakeNodes {
		return step("fake nodes with fake GPUs: kwok", func() error { return s.cluster.AddFakeNodes(ctx, gpuNodes()...) })
	}
	if needs >= realNode && have < realNode {
		if err := s.cluster.RemoveFakeNodes(ctx); err != nil {
			return err
		}
		if err := step("real node: containerd, kubelet, kube-proxy, CoreDNS", func() error { return s.cluster.AddNode(ctx, s.Images...) }); err != nil {
			return err
		}
	}
	if needs == autoscalers && have != autoscalers {
		if err := step("metrics-server", func() error { return s.cluster.AddMetricsServer(ctx) }); err != nil {
			return err
		}
		return step("KEDA: operator, metrics adapter", func() error { return s.cluster.AddKEDA(ctx) })
	}
	return nil
}

// run runs the checks of a theme and removes its namespace.
func (s *Suite) run(ctx context.Context, th theme) {
	t := &T{Suite: s, theme: th.name, Namespace: strings.ToLower(strings.ReplaceAll(th.name, " ", "-"))}
	err := s.cluster.CreateNamespace(ctx, t.Namespace, map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted",
	})
	if err == nil && th.setup != nil {
		err = th.setup(ctx, t)
	}
	failedBefore := s.failed
	if err != nil {
		s.failed += len(th.checks)
		t.report(ctx, "its setup, and so all of its checks", 0, err)
		th.checks = nil
	}
	for _, c := range th.checks {
		begun := time.Now()
		failure := c.run(ctx, t)
		if ctx.Err() != nil {
			return // the sandbox goes, and all with it
		}
		if failure != nil {
			s.failed++
		} else {
			s.passed++
		}
		t.report(ctx, c.name, time.Since(begun), failure)
	}
	if s.Keep && s.failed > failedBefore {
		return
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	var left error
	for _, cleanup := range slices.Backward(t.cleanups) {
		left = errors.Join(left, cleanup(clean))
	}
	if left = errors.Join(left, s.cluster.DeleteNamespace(clean, t.Namespace)); left != nil {
		fmt.Fprintf(s.Log, "     %s is not cleaned up: %v\n", th.name, left)
	}
}

// report prints how a check went, and after a failure what an operator would look at.
func (t *T) report(ctx context.Context, check string, took time.Duration, failure error) {
	if failure == nil {
		fmt.Fprintf(t.Log, "ok   %6.1fs  %s: %s\n", took.Seconds(), t.theme, check)
		return
	}
	fmt.Fprintf(t.Log, "FAIL %6.1fs  %s: %s\n     %s\n", took.Seconds(), t.theme, check, strings.ReplaceAll(failure.Error(), "\n", "\n     "))
	t.dump(ctx)
}

// Cleanup is called when the theme is over, the last one first.
func (t *T) Cleanup(f func(context.Context) error) { t.cleanups = append(t.cleanups, f) }

// Measure notes a figure for the table at the end.
func (t *T) Measure(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	t.measured = append(t.measured, line)
	fmt.Fprintf(t.Log, "     %s\n", line)
}

// Kubectl runs kubectl in the theme's namespace.
func (t *T) Kubectl(ctx context.Context, args ...string) (string, error) {
	return t.cluster.Kubectl(ctx, append([]string{"-n", t.Namespace}, args...)...)
}

// Helm runs helm in the theme's namespace.
func (t *T) Helm(ctx context.Context, args ...string) (string, error) {
	return t.cluster.Helm(ctx, append([]string{"-n", t.Namespace}, args...)...)
}

// file writes a file for a command to read.
func (t *T) file(name string, text []byte) (string, error) {
	path := filepath.Join(t.Dir, t.Namespace+"-"+name)
	return path, os.WriteFile(path, text, 0o600)
}

// eventually calls a probe until it succeeds.
func eventually(ctx context.Context, within time.Duration, probe func(context.Context) error) error {
	return cluster.Wait(ctx, within, probe)
}

// refused turns the success of something that has to fail into an error, and checks that the failure
// says each of the texts.
func refused(out string, err error, texts ...string) error {
	if err == nil {
		return fmt.Errorf("was accepted: %s", out)
	}
	return says(err.Error(), texts...)
}

// says checks that a text has each of the others in it, whatever the case.
func says(text string, parts ...string) error {
	for _, part := range parts {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(part)) {
			return fmt.Errorf("expected %q in: %s", part, text)
		}
	}
	return nil
}
