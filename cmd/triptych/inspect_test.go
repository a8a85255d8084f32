package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/imaging"
)

// ran is what a command prints on standard output, and its error.
func ran(t *testing.T, stdin []byte, line ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetIn(bytes.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&bytes.Buffer{})
	root.SetArgs(line)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestInspectCommand(t *testing.T) {
	const settings = "a fox\nSteps: 2, Seed: 7, Size: 16x8, Model: starter"
	data, err := imaging.Encode(image.NewRGBA(image.Rect(0, 0, 16, 8)), imaging.Options{Format: imaging.PNG, Text: []imaging.Text{{Key: "parameters", Value: settings}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fox.png")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ran(t, nil, "inspect", path); err != nil || got != "png 16x8\n"+settings+"\n" {
		t.Errorf("%q, %v", got, err)
	}
	got, err := ran(t, data, "inspect", "--json", "-")
	var told inspected
	if err != nil || json.Unmarshal([]byte(got), &told) != nil || told != (inspected{"png", 16, 8, len(data), settings}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, c := range []struct {
		stdin []byte
		line  []string
		code  int
		says  string
	}{
		{data[:len(data)-20], []string{"inspect", "-"}, exitFailed, "-: png: expected a readable image, got "},
		{[]byte("no picture"), []string{"inspect", "-"}, exitFailed, `a PNG, JPEG or WebP, got data that begins with "no picture"`},
		{nil, []string{"inspect", "-"}, exitFailed, `a PNG, JPEG or WebP, got data that begins with ""`},
		{nil, []string{"inspect", path + ".missing"}, exitUsage, "no such file"},
		{nil, []string{"inspect"}, exitUsage, "expected one picture, got 0 arguments"},
	} {
		out, err := ran(t, c.stdin, c.line...)
		if code := exitCode(t.Context(), err); code != c.code || !strings.Contains(errors.Join(err).Error(), c.says) || out != "" {
			t.Errorf("%q: code %d, %v, and prints %q; want %d and %q", c.line, code, err, out, c.code, c.says)
		}
	}
}
