//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/families"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// BenchmarkSplit makes the same 20-step image of the starter in turn through the orchestrator and the three
// services and with the stages called in this process, everything loaded, and reports the time of both and
// the processor time of all processes. One thread computes, so that none spins while it waits for another.
func BenchmarkSplit(b *testing.B) {
	const seed, steps, guidance, side, sampler = 1, 20, 5, 128, "ddim"
	s := up(b, "--threads", "1")
	split := func() []byte {
		spec := &triptychv1alpha1.GenerationSpec{
			Model: "starter", Prompt: "fox", Seed: ptr(uint64(seed)), Steps: ptr(int32(steps)), GuidanceScale: ptr(float32(guidance)),
			WidthPx: ptr(int32(side)), HeightPx: ptr(int32(side)), Sampler: sampler, Output: &triptychv1alpha1.OutputOptions{OmitMetadata: true},
		}
		events, err := s.generate(b.Context(), spec, nil)
		if err != nil {
			b.Fatal(err)
		}
		return images(b, events)[0]
	}
	whole := inProcess(b, stage.Options{
		"prompt": stage.TextOption("fox"), "steps": stage.IntOption(steps), "guidance_scale": stage.FloatOption(guidance),
		"sampler": stage.TextOption(sampler), "width": stage.IntOption(side), "height": stage.IntOption(side),
	}, seed)
	if !bytes.Equal(split(), whole()) {
		b.Fatal("the two images differ")
	}
	family := descendants(b, s.cmd.Process.Pid)
	var splitTime, wholeTime, splitCPU, wholeCPU time.Duration
	for b.Loop() {
		cpu, start := ticks(b, family), time.Now()
		split()
		splitTime += time.Since(start)
		splitCPU += ticks(b, family) - cpu
		cpu, start = ownTime(b), time.Now()
		whole()
		wholeTime += time.Since(start)
		wholeCPU += ownTime(b) - cpu
	}
	for name, d := range map[string]time.Duration{"split-ms": splitTime, "whole-ms": wholeTime, "split-cpu-ms": splitCPU, "whole-cpu-ms": wholeCPU} {
		b.ReportMetric(d.Seconds()*1e3/float64(b.N), name)
	}
}

// inProcess gives a function that makes an image with loaded stages.
func inProcess(b *testing.B, options stage.Options, seed uint64) func() []byte {
	b.Helper()
	library, err := stageengine.OpenLibrary("../models/starter")
	if err != nil {
		b.Fatal(err)
	}
	device, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = device.Close() }) // it always returns nil
	stages := map[stage.Kind]*stageengine.Stage{}
	for _, kind := range stage.Kinds() {
		stages[kind] = stageengine.New(kind, stageengine.Options{Library: library, Families: families.All(), Device: device})
	}
	info, err := stages[stage.KindDenoiser].Info(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	turns := info.Models[0].Recipes[0].For(func(string) bool { return false })
	for _, t := range turns {
		if err := stages[t.Kind].Load(b.Context(), stage.LoadRequest{Component: t.Components()[0]}, nil); err != nil {
			b.Fatal(err)
		}
	}
	return func() []byte {
		var out stage.Result
		for _, t := range turns {
			req := stage.WorkRequest{Turn: t.Name, Components: t.Components(), Options: options.Of(t.Options), Values: out.Values, Seed: seed}
			if t.Kind == stage.KindDenoiser {
				req.CheckpointEveryNSteps = 5
			}
			if out, err = stages[t.Kind].Work(b.Context(), req, stage.Observer{}); err != nil {
				b.Fatal(err)
			}
		}
		return out.Values[0].File.Data
	}
}

// ticks is the processor time that processes have taken, which the kernel tells in 1/100 s.
func ticks(b *testing.B, pids map[int]string) (sum time.Duration) {
	b.Helper()
	for pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		for _, f := range fields[11:13] { // utime and stime
			n, err := strconv.Atoi(f)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// ownTime is the processor time this process has taken.
func ownTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
