//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf16"
)

// tiny is the smallest model there is, at one step.
var tiny = []string{"--model", "testdata/golden/tiny-sd15", "--steps", "1", "--seed", "3"}

// TestStandardOutput: the picture goes where it is told to, and what is told of it elsewhere.
func TestStandardOutput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.png")
	if got := runCommand(t, append([]string{"generate", "fox", "-o", file}, tiny...)...); got.code != 0 {
		t.Fatal(got.stderr)
	}
	want := values(t, file)
	for _, path := range []string{"-", "/dev/stdout", "/dev/fd/1"} {
		got := runCommand(t, append([]string{"generate", "fox", "-o", path}, tiny...)...)
		if got.code != 0 || !strings.Contains(got.stderr, "seed 3") || !strings.Contains(got.stderr, "total") {
			t.Errorf("%s: exit code %d, told %s", path, got.code, got.stderr)
		}
		if _, err := png.Decode(strings.NewReader(got.stdout)); err != nil {
			t.Errorf("%s: %.40q is no PNG: %v", path, got.stdout, err)
			continue
		}
		if err := os.WriteFile(file, []byte(got.stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(values(t, file), want) {
			t.Errorf("%s: another picture than in a file", path)
		}
	}
	for _, more := range [][]string{{"--count", "2"}, {"--json"}, {"--preview", "1"}} {
		got := runCommand(t, append(append([]string{"generate", "fox", "-o", "-"}, tiny...), more...)...)
		if got.code != 2 || got.stdout != "" || !strings.Contains(got.stderr, more[0]) {
			t.Errorf("%v: exit code %d, %s", more, got.code, got.stderr)
		}
	}
	got := runCommand(t, "simulate", "--jobs", "5", "--report", "-")
	if got.code != 0 || !strings.HasPrefix(got.stdout, "[") || !strings.Contains(got.stderr, "POLICY") {
		t.Errorf("a report to standard output: exit code %d\n%.80s", got.code, got.stdout)
	}
}

// TestParametersInEveryFormat: a JPEG and a WebP carry them as a PNG does, in UTF-16.
func TestParametersInEveryFormat(t *testing.T) {
	for _, ext := range []string{"jpg", "webp"} {
		file := filepath.Join(t.TempDir(), "x."+ext)
		if got := runCommand(t, append([]string{"generate", "fox 🦊", "-o", file}, tiny...)...); got.code != 0 {
			t.Fatal(got.stderr)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := []byte("UNICODE\x00")
		for _, unit := range utf16.Encode([]rune("fox 🦊\nSteps: 1, Sampler: ")) {
			want = binary.BigEndian.AppendUint16(want, unit)
		}
		if !bytes.Contains(data, want) {
			t.Errorf("no parameters in %s", file)
		}
	}
}

// TestFullOutput: a command whose output is lost fails and says so.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	file := filepath.Join(t.TempDir(), "x.png")
	for _, args := range [][]string{
		append([]string{"generate", "fox", "-o", file, "--json"}, tiny...),
		append([]string{"generate", "fox", "-o", file}, tiny...),
		append([]string{"generate", "fox", "-o", "-"}, tiny...),
		append([]string{"generate", "fox", "-o", "/dev/full"}, tiny...),
		{"models"},
		{"plan", "starter"},
		{"plan", "starter", "--json"},
		{"simulate", "--jobs", "5"},
		{"simulate", "--jobs", "5", "--json"},
		{"version"},
		{"--help"},
	} {
		cmd := command(t, args...)
		var errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &errOut
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != 1 || strings.Count(errOut.String(), "no space left on device") != 1 {
			t.Errorf("%q: exit code %d, %s", args, code, &errOut)
		}
	}
}

// TestCancelled: ctrl-C says so, and nothing else, as soon as a command is at work.
func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "trace.jsonl")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(r io.Reader) {
		if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		args []string
		wait func(stdout, stderr io.Reader) // until it is at work
	}{
		{[]string{"generate", "fox", "-o", filepath.Join(dir, "x.png"), "--steps", "1000"}, func(_, stderr io.Reader) { read(stderr) }},
		{[]string{"generate", "fox", "-o", filepath.Join(dir, "x.png"), "--steps", "1000", "--json"}, func(stdout, _ io.Reader) { read(stdout) }},
		{[]string{"simulate", "--trace", fifo}, func(_, _ io.Reader) {
			w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // once it reads
			if err != nil {
				t.Error(err)
			}
			t.Cleanup(func() { _ = w.Close() })
		}},
	} {
		cmd := command(t, c.args...)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.wait(stdout, stderr)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, stdout) }()
		said, _ := io.ReadAll(stderr)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 || !bytes.HasSuffix(said, []byte("triptych: cancelled\n")) || bytes.Contains(said, []byte("rpc error")) {
			t.Errorf("%q: exit code %d, %s", c.args, code, said)
		}
	}
}
