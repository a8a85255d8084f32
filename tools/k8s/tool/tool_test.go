package tool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A module of ours with one program that prints a variable set by the linker.
func write(t *testing.T, dir, says string) {
	t.Helper()
	for name, text := range map[string]string{
		"go.mod":       "module example.com/pinned\n\ngo 1.26\n",
		"said/main.go": "package main\n\nvar version string\n\nfunc main() { println(\"" + says + "\", version) }\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A program is built once, and again when what it is made from changes.
func TestBuilt(t *testing.T) {
	module, bin := t.TempDir(), t.TempDir()
	s := source{pkg: "./said", ldflags: "-X main.version=1"}
	build := func() os.FileInfo {
		t.Helper()
		path, err := s.built(t.Context(), module, bin, "said")
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	write(t, module, "hello")
	first := build()
	if again := build(); !os.SameFile(first, again) {
		t.Error("it was built again though nothing had changed")
	}
	write(t, module, "goodbye")
	if changed := build(); os.SameFile(first, changed) {
		t.Error("it was not built again when its source changed")
	}
	before := build()
	s.ldflags = "-X main.version=2"
	if changed := build(); os.SameFile(before, changed) {
		t.Error("it was not built again when its flags changed")
	}
}

// A program that does not compile leaves no file, and the compiler's words are in the error.
func TestBuiltFails(t *testing.T) {
	module, bin := t.TempDir(), t.TempDir()
	write(t, module, "\" + nobody + \"")
	_, err := source{pkg: "./said"}.built(t.Context(), module, bin, "said")
	if err == nil || !strings.Contains(err.Error(), "undefined: nobody") {
		t.Errorf("the error is %v", err)
	}
	if _, err := os.Stat(filepath.Join(bin, "said")); err == nil {
		t.Error("there is a program all the same")
	}
}

// Every source has a go.mod that requires the module of its package and has its checksum.
func TestSources(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range sources {
		module := filepath.Join(root, "tools", "k8s", s.module)
		if strings.HasPrefix(s.pkg, "./") {
			if _, err := os.Stat(filepath.Join(module, s.pkg)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		version, err := pinned(filepath.Join(module, "go.mod"), s.pkg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sums, err := os.ReadFile(filepath.Join(module, "go.sum"))
		if err != nil || !strings.Contains(string(sums), " "+version+" h1:") {
			t.Errorf("%s: go.sum of %s has no %s: %v", name, s.module, version, err)
		}
	}
}

func TestFlags(t *testing.T) {
	dir := t.TempDir()
	gomod := "module x\n\nrequire example.com/a/b v1.2.3\n\nrequire (\n\texample.com/a v0.1.0 // indirect\n)\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(gomod), 0o644); err != nil {
		t.Fatal(err)
	}
	for pkg, want := range map[string]string{
		"example.com/a/b/cmd/p": "-s -w -X v.gitVersion=v1.2.3",
		"example.com/a/cmd/p":   "-s -w -X v.gitVersion=v0.1.0",
	} {
		got, err := source{pkg: pkg, ldflags: "-X v.gitVersion={version}"}.flags(dir)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", pkg, got, err, want)
		}
	}
	if _, err := (source{pkg: "example.com/ab", ldflags: "{version}"}).flags(dir); err == nil {
		t.Error("a package of no module has a version")
	}
}
