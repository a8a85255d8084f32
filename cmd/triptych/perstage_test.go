package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/stage"
)

// TestComputeFlag: a type is handed on to the stage it is for, and refused where the device does not compute in it.
func TestComputeFlag(t *testing.T) {
	var f weightFlags
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.add(flags)
	if err := flags.Parse([]string{"--compute", "denoiser=bf16,encoder=f32"}); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[stage.Kind][]string{
		stage.KindEncoder: {"--compute", "encoder=f32"}, stage.KindDenoiser: {"--compute", "denoiser=bf16"}, stage.KindDecoder: nil,
	} {
		if got := f.args(kind); !slices.Equal(got, want) {
			t.Errorf("the %v gets %q, want %q", kind, got, want)
		}
	}
	if err := f.only(stage.KindDenoiser); err == nil || !strings.Contains(err.Error(), "--compute names the encoder") {
		t.Errorf("an encoder's type for a denoiser: %v", err)
	}
	planner := func(o cpu.Options) *cpu.Planner {
		p, err := cpu.NewPlanner(o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if err := f.check(planner(cpu.Options{Emulate: true})); err != nil {
		t.Error(err)
	}
	chosen := kernel.Variant()
	if err := kernel.Select(kernel.Generic); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = kernel.Select(chosen) }() // it was selected before
	err := f.check(planner(cpu.Options{}))
	var usage usageError
	if !errors.As(err, &usage) || !strings.HasPrefix(err.Error(), "--compute denoiser=bf16: cpu:0: computing in bf16 is not supported: needs a processor with AVX512_BF16") {
		t.Errorf("without the instructions: %v", err)
	}
	if err := flags.Parse([]string{"--compute", "bf17"}); err == nil || !strings.Contains(err.Error(), `expected f32 or bf16, got "bf17"`) {
		t.Errorf("an unknown type: %v", err)
	}
}
