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

// Embeddings are the paths of files that may be textual inversions: those in a folder of that name beside a model.
func (l *Library) Embeddings() (out []string) {
	beside := map[string]bool{}
	l.mu.RLock()
	for _, path := range l.paths {
		beside[filepath.Join(filepath.Dir(path), embeddingsFolder)] = true
	}
	l.mu.RUnlock()
	for _, dir := range slices.Sorted(maps.Keys(beside)) {
		entries, _ := os.ReadDir(dir) // there need be none
		for _, e := range entries {
			if inversion.Is(e.Name()) {
				out = append(out, filepath.Join(dir, e.Name()))
			}
		}
	}
	return out
}
