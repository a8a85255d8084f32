package fetch

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/internal/modelfolder"
	"github.com/triptych-serving/triptych/stage"
)

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func one(file string) string {
	return `{"models": [{"name": "sd15", "files": [` + file + `]}]}`
}

func entry(path string) string {
	quoted, _ := json.Marshal(path)
	return `{"path": ` + string(quoted) + `, "url": "https://a/b", "sha256": "` + zeros + `"}`
}

func TestParse(t *testing.T) {
	for _, good := range []string{
		one(entry("model_index.json")),
		one(entry("unet/a b.safetensors") + "," + entry("unet/c") + "," + entry(".gitattributes")),
		`{"models": [{"name": "a", "files": [` + entry("x") + `]}, {"name": "b", "files": [` + entry("x") + `]}]}`,
		one(`{"path": "x", "url": "http://user:pass@[::1]:80/b?q=1", "sha256": "` + zeros + `", "size": 0}`),
	} {
		if _, err := Parse([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, says := range map[string]string{
		"":                                   "cannot be read",
		"[]":                                 "cannot be read",
		"{}":                                 `models = "0 models"`,
		`{"model": []}`:                      `unknown field "model"`,
		one(entry("x")) + "{}":               "goes on behind its end",
		`{"models": [{"name": "a"}]}`:        `models[0].files = "0 files"`,
		one(entry("../x")):                   `files[0].path = "../x" is not accepted`,
		one(entry("a/../../x")):              "files[0].path",
		one(entry("a/../x")):                 "files[0].path",
		one(entry("/etc/passwd")):            "files[0].path",
		one(entry("")):                       "files[0].path",
		one(entry(".")):                      "files[0].path",
		one(entry("a/")):                     "files[0].path",
		one(entry("a//b")):                   "files[0].path",
		one(entry(`a\b`)):                    "files[0].path",
		one(entry("a\x00b")):                 "files[0].path",
		one(entry("a\nb")):                   "files[0].path",
		one(entry(".triptych.json")):         "files[0].path",
		one(entry("a/.triptych/x")):          "files[0].path",
		one(entry(strings.Repeat("a", 513))): "files[0].path",
		one(entry("a") + "," + entry("b") + "," + entry("a")):                                                      `files[2].path = "a"`,
		one(entry("a") + "," + entry("A")):                                                                         `files[1].path = "A"`,
		one(entry("a/b") + "," + entry("a")):                                                                       `files[1].path = "a"`,
		one(entry("a") + "," + entry("a/b")):                                                                       `files[1].path = "a/b"`,
		strings.Replace(one(entry("x")), "sd15", "../sd15", 1):                                                     `models[0].name = "../sd15"`,
		strings.Replace(one(entry("x")), "sd15", ".triptych", 1):                                                   "models[0].name",
		strings.Replace(one(entry("x")), "sd15", "a,b", 1):                                                         "models[0].name",
		strings.Replace(one(entry("x")), "sd15", "", 1):                                                            "models[0].name",
		`{"models": [{"name": "a", "files": [` + entry("x") + `]}, {"name": "A", "files": [` + entry("x") + `]}]}`: "models[1].name",
		strings.Replace(one(entry("x")), "https://a/b", "file:///etc/passwd", 1):                                   "files[0].url is not accepted",
		strings.Replace(one(entry("x")), "https://a/b", "https:///b", 1):                                           "files[0].url is not accepted",
		strings.Replace(one(entry("x")), zeros, zeros[1:], 1):                                                      "files[0].sha256",
		strings.Replace(one(entry("x")), zeros, strings.Repeat("A", 64), 1):                                        "files[0].sha256",
		strings.Replace(one(entry("x")), `"}`, `", "size": -1}`, 1):                                                `files[0].size = "-1"`,
		strings.Replace(one(entry("x")), `"}`, `", "size": 9000000000000}`, 1):                                     "files[0].size",
		strings.Replace(one(entry("x")), `"}`, `", "size": 1e99}`, 1):                                              "cannot be read",
	} {
		_, err := Parse([]byte(bad))
		if stage.ReasonOf(err) != stage.InvalidField || !strings.Contains(fmt.Sprint(err), says) {
			t.Errorf("%.120s: %v, want INVALID_FIELD that says %q", bad, err, says)
		}
	}
	if _, err := Parse([]byte(strings.Replace(one(entry("x")), "https://a/b", "ftp://user:secret@a/b?token=secret", 1))); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a URL that is refused: %v", err)
	}
}

// FuzzParse: what is accepted stays below its folder, each file at a place of its own.
func FuzzParse(f *testing.F) {
	f.Add([]byte(one(entry("unet/x") + "," + entry("../x"))))
	f.Add([]byte(`{"models": [{"name": "a", "files": [` + entry("x") + `]}, {"name": "B", "files": [` + entry("y") + `]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		for _, model := range m.Models {
			seen := map[string]bool{}
			for _, file := range model.Files {
				if !modelfolder.ValidPath(file.Path) || strings.Contains(file.Path, "..") && strings.Contains("/"+file.Path+"/", "/../") || seen[file.Path] {
					t.Errorf("%q is accepted", file.Path)
				}
				seen[file.Path] = true
			}
		}
	})
}
