package modeldir

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Stamp tells a model's files from those of other times without reading them: by size and the times of the last change, of
// content and of the entry, which a copy with its times or a rename changes as well. Of weight files those in used count, and the
// names of the others, or all if used is nil. Folders are those of the model's parts; nil are all there are. whole tells
// whether everything could be looked at; what is missing is part of the stamp. A file's stamp has the folder of its name and its autoencoder too; beside
// are further files of the model, which may lie anywhere.
func Stamp(path string, folders, used []string, beside ...string) (stamp string, whole bool) {
	var b strings.Builder
	whole = true
	look := func(file string) {
		var s unix.Stat_t
		if err := unix.Stat(file, &s); err != nil {
			fmt.Fprintf(&b, "%q %v\n", file, err)
			whole = false
			return
		}
		fmt.Fprintf(&b, "%q %d %d %d\n", file, s.Size, s.Mtim.Nano(), s.Ctim.Nano())
	}
	single := IsFile(path)
	index, root := path, strings.TrimSuffix(path, filepath.Ext(path)) // a folder beside a file tells what that does not
	if !single {
		index, root = stampedIndex(path)
	}
	look(index)
	for _, file := range beside {
		look(file)
	}
	if single {
		for _, ext := range vaeExtensions() {
			if file := root + ext; IsFile(file) {
				look(file)
			}
		}
	}
	info, err := os.Stat(root)
	has := err == nil && info.IsDir() // else the file has it all
	if folders == nil && has {
		all, _ := os.ReadDir(root) // of what cannot be listed, the index cannot be looked at
		for _, e := range all {
			if info, err := os.Stat(filepath.Join(root, e.Name())); err == nil && info.IsDir() {
				folders = append(folders, e.Name())
			}
		}
	}
	for _, folder := range folders {
		if single && (folder == "" || !has && !strings.HasPrefix(folder, "..")) {
			continue
		}
		dir := filepath.Join(root, folder)
		entries, err := os.ReadDir(dir)
		if err != nil && single {
			continue // it is in the file
		}
		if err != nil {
			fmt.Fprintf(&b, "%q %v\n", dir, err)
			whole = false
		}
		for _, e := range entries {
			file := filepath.Join(dir, e.Name())
			ext := filepath.Ext(file)
			switch isWeights := ext == ".safetensors" || ext == ".bin"; {
			case e.Type()&fs.ModeSymlink == 0 && !e.Type().IsRegular():
			case ext == ".json", ext == ".txt", isWeights && (used == nil || slices.Contains(used, file)):
				look(file)
			case isWeights:
				fmt.Fprintf(&b, "%q\n", file)
			}
		}
	}
	return b.String(), whole
}

// stampedIndex is the file that makes a folder a model, and where the others are.
func stampedIndex(path string) (index, root string) {
	if snapshot, err := Snapshot(path); err == nil {
		path = snapshot
	}
	index = filepath.Join(path, IndexFile)
	if _, err := os.Stat(index); err == nil || !IsModel(path) {
		return index, path
	}
	if files := loraFiles(path); len(files) > 0 {
		return files[0].path, path
	}
	return filepath.Join(path, configFile), path
}
