package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A file is an entry of a layer: a regular file, or a folder where name ends with a slash. Parents need no entries.
type file struct {
	name string
	mode int64
	data []byte
}

// pack writes files as a tar that depends on them alone: in the order of their names, of root, as of 1970.
func pack(files []file) ([]byte, error) {
	all := map[string]file{}
	for _, f := range files {
		for dir := path.Dir(strings.TrimSuffix(f.name, "/")); dir != "."; dir = path.Dir(dir) {
			if _, there := all[dir+"/"]; !there {
				all[dir+"/"] = file{name: dir + "/", mode: 0o755}
			}
		}
		all[f.name] = f
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range slices.SortedFunc(maps.Values(all), func(a, b file) int { return cmp.Compare(a.name, b.name) }) {
		h := tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// tree reads the regular files below a folder as entries below another.
func tree(dir, into string) (files []file, err error) {
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		files = append(files, file{path.Join(into, name), 0o644, data})
		return err
	})
	return files, err
}

// system are the files that programs expect of a machine, and that no build changes.
func system() []file {
	return []file{
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n")},
		{"etc/group", 0o644, []byte("root:x:0:\nnonroot:x:65532:\n")},
		{"tmp/", 0o1777, nil},
	}
}

// licences are those in the folders of a binary's modules and of Go, which ask to go where the binary goes.
func licences(folders map[string]string) (files []file, err error) {
	for module, dir := range folders {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			switch upper := strings.ToUpper(e.Name()); {
			case !e.Type().IsRegular():
			case strings.HasPrefix(upper, "LICENSE"), strings.HasPrefix(upper, "LICENCE"), strings.HasPrefix(upper, "COPYING"), strings.HasPrefix(upper, "NOTICE"), strings.HasPrefix(upper, "PATENTS"):
				data, err := os.ReadFile(filepath.Join(dir, e.Name()))
				if err != nil {
					return nil, err
				}
				files = append(files, file{path.Join(licenceFolder, "third-party", module, e.Name()), 0o644, data})
			}
		}
	}
	return files, nil
}

const licenceFolder = "usr/share/licenses/triptych"
