package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completed is what a shell is told of a command line that ends with what is to be completed.
func completed(t *testing.T, line ...string) (values []string, directive string) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&bytes.Buffer{})
	root.SetArgs(append([]string{cobra.ShellCompRequestCmd}, line...))
	if err := root.Execute(); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

func TestCompletion(t *testing.T) {
	t.Setenv(modelsEnv, "../../models,../../testdata/golden/tiny-v")
	const sdxl = "../../testdata/golden/sdxl/"
	const adapters = sdxl + "tiny-sd15," + sdxl + "control-sd-a," + sdxl + "ip-adapter/ip-adapter_tiny.safetensors," + sdxl + "lora/sd-kohya.safetensors," + sdxl + "esrgan/x4.pth"
	const noFiles, anything, extensions, onlyFolders = ":4", ":0", ":8", ":16"
	for _, c := range []struct {
		line      []string
		want      []string // among others
		directive string
	}{
		{[]string{"generate", "fox", "--model", ""}, []string{"starter", "tiny-v"}, anything},
		{[]string{"generate", "fox", "--models", "../../testdata/golden/tiny-sd15", "--model", ""}, []string{"tiny-sd15"}, anything},
		{[]string{"generate", "fox", "--models", adapters, "--model", ""}, []string{"tiny-sd15"}, anything},
		{[]string{"generate", "fox", "--models", adapters, "--controlnet", ""}, []string{"control-sd-a"}, noFiles},
		{[]string{"plan", "fox", "--models", adapters, "--lora", ""}, []string{"sd-kohya"}, noFiles},
		{[]string{"generate", "fox", "--models", adapters, "--ip-adapter", ""}, []string{"ip-adapter_tiny"}, noFiles},
		{[]string{"generate", "fox", "--models", adapters, "--hires-upscaler", ""}, []string{"x4"}, noFiles},
		{[]string{"upscale", "a.png", "b.png", "--models", adapters, "--model", ""}, []string{"x4"}, noFiles},
		{[]string{"models", "--models", adapters, ""}, []string{"control-sd-a", "ip-adapter_tiny", "sd-kohya", "tiny-sd15", "x4"}, anything},
		{[]string{"generate", "fox", "--from-png", ""}, []string{"png", "webp"}, extensions},
		{[]string{"plan", ""}, []string{"starter", "tiny-v"}, anything},
		{[]string{"generate", "fox", "--sampler", ""}, []string{"ddim", "euler_karras", "lcm"}, noFiles},
		{[]string{"up", "--offload", ""}, []string{"none", "balanced", "model"}, noFiles},
		{[]string{"up", "--pin", "den"}, []string{"denoiser", "denoiser:starter"}, noFiles},
		{[]string{"up", "--precision", ""}, []string{"bf16", "int8", "denoiser=int4"}, noFiles},
		{[]string{"plan", "--compute", ""}, []string{"f32", "bf16", "denoiser=bf16"}, noFiles},
		{[]string{"encoder", "--device", ""}, []string{"cpu:0"}, noFiles},
		{[]string{"orchestrator", "--log-format", ""}, []string{"text", "json"}, noFiles},
		{[]string{"generate", "fox", "-o", ""}, []string{"png", "webp"}, extensions},
		{[]string{"decoder", "--tls-key", ""}, []string{"pem", "key"}, extensions},
		{[]string{"simulate", "--from", ""}, []string{"jsonl"}, extensions},
		{[]string{"up", "--models", ""}, nil, onlyFolders},
		{[]string{"cache", "--from", ""}, nil, onlyFolders},
		{[]string{"cache", "--from", "../../models", "--model", ""}, []string{"starter"}, noFiles},
		{[]string{"fetch", "--manifest", ""}, []string{"json"}, extensions},
		{[]string{"fetch", "--model", ""}, nil, noFiles},
		{[]string{"inspect", ""}, []string{"png"}, extensions},
		{[]string{"generate", "fox", "--steps", ""}, nil, noFiles},
		{[]string{"generate", ""}, nil, noFiles},
		{[]string{"version", ""}, nil, noFiles},
	} {
		got, directive := completed(t, c.line...)
		for _, want := range c.want {
			if !slices.Contains(got, want) {
				t.Errorf("%q: %q, want %s among them", c.line, got, want)
			}
		}
		if slices.Contains(c.line, adapters) && len(got) != len(c.want) {
			t.Errorf("%q: %q, want %q alone", c.line, got, c.want)
		}
		if directive != c.directive || c.want == nil && len(got) > 0 {
			t.Errorf("%q: %q %s, want %s", c.line, got, directive, c.directive)
		}
	}
}

// TestCompletionsAreOfFlags: none is of a flag that is not there any more.
func TestCompletionsAreOfFlags(t *testing.T) {
	all := completions()
	for _, cmd := range rootCommand().Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { delete(all, f.Name) })
	}
	for name := range all {
		t.Errorf("no command has a flag --%s", name)
	}
}

func TestVersion(t *testing.T) {
	print := func(args ...string) string {
		var out bytes.Buffer
		root := rootCommand()
		root.SetOut(&out)
		root.SetArgs(args)
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if a, b := print("version"), print("--version"); a != b || !strings.HasPrefix(a, "triptych ") {
		t.Errorf("version prints %q, --version %q", a, b)
	}
}
