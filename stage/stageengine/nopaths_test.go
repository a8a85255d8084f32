package stageengine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// zoo copies every file of the goldens of formats into a folder, under the name of its group and its own, once as it is and, where it
// could want something beside it, once with that. It returns how many there are.
func zoo(t *testing.T, folder string) (n int) {
	t.Helper()
	for _, group := range []string{"checkpoints", "control", "embeddings", "hostile", "ip", "lora", "safetensors", "taesd", "torch", "upscalers"} {
		err := filepath.WalkDir(filepath.Join(formatGoldens, group), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) == ".json" || filepath.Ext(path) == ".png" {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			n++
			names := []string{fmt.Sprintf("%s-%d-", group, n)}
			if group == "ip" || group == "checkpoints" {
				names = append(names, names[0]+"beside-")
			}
			for _, name := range names {
				to := filepath.Join(folder, name+filepath.Base(path))
				if err := os.WriteFile(to, data, 0o600); err != nil {
					return err
				}
				beside := strings.TrimSuffix(to, filepath.Ext(to))
				if !strings.Contains(name, "beside") {
					continue
				} else if group == "ip" {
					err = os.CopyFS(filepath.Join(beside, "image_encoder"), os.DirFS(filepath.Join(sdxlGoldens, "ip-adapter", "image_encoder")))
				} else if group == "checkpoints" {
					base := "micro-sd15"
					if strings.HasPrefix(filepath.Base(path), "xl") {
						base = "micro-sdxl"
					}
					err = os.CopyFS(beside, os.DirFS(filepath.Join(formatGoldens, base)))
					if err == nil {
						err = os.Remove(filepath.Join(beside, "model_index.json"))
					}
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestProblemsHaveNoPaths: what callers are told of files that cannot be used, by the list of models and by loads, does not tell where they are.
func TestProblemsHaveNoPaths(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "secret-place")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	n := zoo(t, folder)
	problems := 0
	check := func(of, text string) {
		t.Helper()
		if text != "" {
			problems++
		}
		if strings.Contains(text, "secret-place") || strings.Contains(text, os.TempDir()) {
			t.Errorf("%s: %s", of, text)
		}
	}
	for kind, s := range openStages(t, folder) {
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range info.Models {
			check(m.Name, m.Problem)
		}
		for _, c := range info.Components {
			check(c.Name, c.Problem)
			for _, w := range c.Warnings {
				check(c.Name, w)
			}
			err := s.Load(t.Context(), stage.LoadRequest{Component: c.Name}, nil)
			if err == nil {
				_, err = s.Evict(t.Context(), stage.EvictRequest{Component: c.Name})
			}
			if err != nil {
				var told *stage.Error
				if !errors.As(err, &told) {
					t.Errorf("%v of %s: %v is no error for callers", kind, c.Name, err)
					continue
				}
				check(fmt.Sprint(kind, " ", c.Name), told.Message+fmt.Sprint(told.Metadata))
			}
		}
	}
	t.Logf("%d files, %d problems", n, problems)
	if problems < n {
		t.Errorf("%d files have %d problems", n, problems)
	}
}
