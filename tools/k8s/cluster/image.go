//go:build linux

package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path"
	"runtime"
	"slices"
)

// WriteImage writes a Docker archive with one layer of the given files, by path. The first entry of
// command is the program; files are executable.
func WriteImage(archive, name string, files map[string][]byte, command ...string) error {
	layer, err := tarball(files)
	if err != nil {
		return err
	}
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": command, "User": "65532:65532"},
		"rootfs": object{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
	})
	if err != nil {
		return err
	}
	configName := digest(config) + ".json"
	manifest, err := json.Marshal([]object{{"Config": configName, "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	image, err := tarball(map[string][]byte{"manifest.json": manifest, configName: config, "layer.tar": layer})
	if err != nil {
		return err
	}
	return os.WriteFile(archive, image, 0o600)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// tarball packs files in the order of their names, each folder before what is in it.
func tarball(files map[string][]byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	var names []string
	for name := range files {
		names = append(names, name)
		for folder := path.Dir(name); folder != "." && folder != "/"; folder = path.Dir(folder) {
			names = append(names, folder+"/")
		}
	}
	slices.Sort(names)
	var failed error
	for _, name := range slices.Compact(names) {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(files[name]))}
		if _, file := files[name]; !file {
			header.Typeflag = tar.TypeDir
		}
		failed = errors.Join(failed, w.WriteHeader(header))
		_, err := w.Write(files[name])
		failed = errors.Join(failed, err)
	}
	return out.Bytes(), errors.Join(failed, w.Close())
}
