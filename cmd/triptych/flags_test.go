package main

import (
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
