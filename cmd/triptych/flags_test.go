package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spf13/pflag"
)

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	comma := filepath.Join(dir, `a,b "c"`)
	if err := os.Mkdir(comma, 0o700); err != nil {
		t.Fatal(err)
	}
	parse := func(args ...string) (dirs []string) {
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		modelsFlag(flags, &dirs)
		if err := flags.Parse(args); err != nil {
			t.Fatal(err)
		}
		return dirs
	}
	for _, c := range []struct{ args, want []string }{
		{nil, []string{"models"}},
		{[]string{"--models", "a,b"}, []string{"a", "b"}},
		{[]string{"--models", "a", "--models", comma, "--models", "b"}, []string{"a", comma, "b"}},
	} {
		t.Setenv(modelsEnv, "")
		if got := parse(c.args...); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
	t.Setenv(modelsEnv, comma)
	if got := parse(); !slices.Equal(got, []string{comma}) {
		t.Errorf("$%s: %q", modelsEnv, got)
	}
	if got := parse("--models", "a"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("$%s and a flag: %q", modelsEnv, got)
	}
}

func TestVAEFlag(t *testing.T) {
	place := t.TempDir()
	odd := filepath.Join(place, "a=b.safetensors")
	if err := os.WriteFile(odd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want vaeFiles
	}{
		"all":              {[]string{"vae.pt"}, vaeFiles{"": "vae.pt"}},
		"one and all":      {[]string{"xl=a/b.pt", "vae.pt"}, vaeFiles{"xl": "a/b.pt", "": "vae.pt"}},
		"the later counts": {[]string{"a.pt", "b.pt"}, vaeFiles{"": "b.pt"}},
		"a name with =":    {[]string{odd}, vaeFiles{"": odd}},
		"both":             {[]string{"xl=" + odd}, vaeFiles{"xl": odd}},
	} {
		var v vaeFiles
		for _, text := range c.args {
			if err := v.Set(text); err != nil {
				t.Fatal(err)
			}
		}
		var again vaeFiles
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		again.add(flags)
		if err := flags.Parse(v.args()); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(v, c.want) || !maps.Equal(again, c.want) {
			t.Errorf("%s: %v, for a service %v, want %v", name, v, again, c.want)
		}
	}
	if err := new(vaeFiles).Set("xl="); err == nil {
		t.Error("no file is taken")
	}
}
