// Package fetch downloads models by a manifest: over HTTP, resumed where it stopped, checked by SHA-256, each model whole or not at
// all. It may import internal/modelfolder and stage.
package fetch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/triptych-serving/triptych/internal/modelfolder"
	"github.com/triptych-serving/triptych/stage"
)

// What a manifest may be.
const (
	MaxManifest = 16 << 20 // bytes
	maxModels   = 1000
	maxFiles    = 10_000  // of a model
	maxSize     = 1 << 40 // bytes of a file
)

// Manifest says which files make models, and where they are.
type Manifest struct {
	Models []Model `json:"models"`
}

// Model is a folder of files.
type Model struct {
	Name  string `json:"name"`
	Files []File `json:"files"`
}

// File is where a file is to be had. Size is in bytes, nil if the manifest does not tell it.
type File struct {
	Path   string `json:"path"`
	URL    string `json:"url"`
	SHA256 string `json:"sha256"`
	Size   *int64 `json:"size"`
}

// Parse reads a manifest of at most MaxManifest bytes. Errors are stage.Errors that name the field.
func Parse(data []byte) (Manifest, error) {
	var m Manifest
	if len(data) > MaxManifest {
		return m, stage.Invalid(stage.InvalidField, "manifest", fmt.Sprintf("%d bytes", len(data)), fmt.Sprintf("at most %d bytes", MaxManifest))
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return m, stage.Errorf(stage.InvalidField, `the manifest cannot be read: %w; expected {"models": [{"name": …, "files": [{"path": …, "url": …, "sha256": …, "size": …}]}]}`, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return m, stage.Errorf(stage.InvalidField, "the manifest goes on behind its end, expected one JSON object")
	}
	if len(m.Models) == 0 || len(m.Models) > maxModels {
		return m, stage.Invalid(stage.InvalidField, "models", fmt.Sprintf("%d models", len(m.Models)), fmt.Sprintf("1 to %d", maxModels))
	}
	names := map[string]bool{}
	for i, model := range m.Models {
		if err := model.check(fmt.Sprintf("models[%d]", i)); err != nil {
			return m, err
		}
		if folded := strings.ToLower(model.Name); names[folded] {
			return m, stage.Invalid(stage.InvalidField, fmt.Sprintf("models[%d].name", i), model.Name, "a name that no other model has, whatever the case of its letters")
		} else { //nolint:revive // folded is meant for both
			names[folded] = true
		}
	}
	return m, nil
}

func (m Model) check(field string) error {
	if !modelfolder.ValidName(m.Name) {
		return stage.Invalid(stage.InvalidField, field+".name", m.Name, modelfolder.NameRule)
	}
	if len(m.Files) == 0 || len(m.Files) > maxFiles {
		return stage.Invalid(stage.InvalidField, field+".files", fmt.Sprintf("%d files", len(m.Files)), fmt.Sprintf("1 to %d", maxFiles))
	}
	paths, folders := map[string]bool{}, map[string]bool{}
	for i, f := range m.Files {
		at := fmt.Sprintf("%s.files[%d]", field, i)
		if err := f.check(at); err != nil {
			return err
		}
		path := strings.ToLower(f.Path)
		taken := paths[path] || folders[path]
		for n, r := range path {
			if r == '/' {
				taken = taken || paths[path[:n]]
				folders[path[:n]] = true
			}
		}
		if paths[path] = true; taken {
			return stage.Invalid(stage.InvalidField, at+".path", f.Path, "a path that is no other file's nor the folder of one, whatever the case of its letters")
		}
	}
	return nil
}

func (f File) check(field string) error {
	if !modelfolder.ValidPath(f.Path) {
		return stage.Invalid(stage.InvalidField, field+".path", f.Path, modelfolder.PathRule)
	}
	u, err := url.Parse(f.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		// What the URL is may be a secret.
		return &stage.Error{Reason: stage.InvalidField, Message: field + ".url is not accepted, expected one that begins with https:// or http:// and names a host"}
	}
	if sum, err := hex.DecodeString(f.SHA256); err != nil || len(sum) != 32 || strings.ToLower(f.SHA256) != f.SHA256 {
		return stage.Invalid(stage.InvalidField, field+".sha256", f.SHA256, "64 hexadecimal digits in lower case, as sha256sum prints them")
	}
	if f.Size != nil && (*f.Size < 0 || *f.Size > maxSize) {
		return stage.Invalid(stage.InvalidField, field+".size", *f.Size, fmt.Sprintf("0 to %d bytes", int64(maxSize)))
	}
	return nil
}

// key tells the file from others of its model, and its content from others at its path.
func (f File) key() string {
	sum := sha256.Sum256([]byte(f.Path + "\x00" + f.SHA256))
	return hex.EncodeToString(sum[:])
}

// place is a URL as it can be told: without user, query and fragment, which may be secrets.
func place(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
