package stageengine

import (
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/inversion"
)

// embeddingsFolder is where textual inversions are, beside models.
const embeddingsFolder = "embeddings"

// embeddings are the textual inversions of a library, as they were read.
type embeddings struct{ named, loose inversion.Shelf }

// Embeddings are the files in a folder of that name beside models, and files beside models that are textual inversions.
func (l *Library) Embeddings() []*inversion.Inversion {
	beside := map[string]bool{}
	l.mu.RLock()
	for _, path := range l.paths {
		beside[filepath.Dir(path)] = true
	}
	l.mu.RUnlock()
	var named, loose []string
	for _, dir := range slices.Sorted(maps.Keys(beside)) {
		named = append(named, inversionsIn(filepath.Join(dir, embeddingsFolder), 0)...)
		loose = append(loose, inversionsIn(dir, inversion.MaxLoose)...)
	}
	out := l.embeddings.named.Look(named)
	for _, in := range l.embeddings.loose.Look(loose) {
		if in.Err == nil {
			out = append(out, in)
		}
	}
	return out
}

// inversionsIn are the files of a folder that may be textual inversions, of so many bytes at most; 0 is any.
func inversionsIn(dir string, most int64) (out []string) {
	entries, _ := os.ReadDir(dir) // there need be none
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !inversion.Is(path) {
			continue
		}
		if info, err := os.Stat(path); err == nil && (most == 0 || info.Size() <= most) {
			out = append(out, path)
		}
	}
	return out
}
