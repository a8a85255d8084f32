package weights

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The extensions of weight files in folders: of safetensors, and of torch.
const (
	extension = ".safetensors"
	pickled   = ".bin"
)

// Naming is how a library names the weight files in the folder of a network, and which of several it reads.
type Naming struct {
	stem, extension string
	indexFirst      bool
	older           *Naming // of folders without such files
}

// Transformers reads model.safetensors, else the files that model.safetensors.index.json lists; where there are neither,
// those of the older pytorch_model.bin.
func Transformers() Naming {
	return Naming{stem: "model", extension: extension, older: &Naming{stem: "pytorch_model", extension: pickled}}
}

// Diffusers reads the files that diffusion_pytorch_model.safetensors.index.json lists, else
// diffusion_pytorch_model.safetensors; where there are neither, those of diffusion_pytorch_model.bin.
func Diffusers() Naming {
	const stem = "diffusion_pytorch_model"
	return Naming{stem: stem, extension: extension, indexFirst: true, older: &Naming{stem: stem, extension: pickled, indexFirst: true}}
}

// found is the file to open in a folder, of weights or an index. Its variant is empty for the names that a library reads
// without being told of one.
type found struct {
	path, variant string
}

func (f found) isIndex() bool { return strings.HasSuffix(f.path, ".json") }

// names lists what weights of a variant may be called, the preferred name first. The older diffusers had the second
// place for an index's variant.
func (n Naming) names(variant string) []string {
	v := ""
	if variant != "" {
		v = "." + variant
	}
	single, indexes := n.stem+v+n.extension, []string{n.stem + n.extension + ".index" + v + ".json", n.stem + n.extension + v + ".index.json"}
	if n.indexFirst {
		return append(indexes, single)
	}
	return append([]string{single}, indexes...)
}

// find tells what to open in a folder: the weights without a variant or, where there are none, the only variant; where there is
// neither, the same of the older names. If there is nothing of it, the path is empty and got tells what is there instead. The error, an Error, is of a folder that cannot be
// read or has several variants.
func (n Naming) find(dir string) (f found, got string, err error) {
	if f := n.findVariant(dir, ""); f.path != "" {
		return f, "", nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return f, "", n.missing(dir, "no folder", err)
	} else if err != nil {
		return f, "", n.missing(dir, reason(err), err)
	}
	var variants []string
	for _, e := range entries {
		if v := n.variantOf(e.Name()); v != "" {
			variants = append(variants, v)
		}
	}
	slices.Sort(variants)
	switch variants = slices.Compact(variants); {
	case len(variants) == 0 && n.older != nil:
		return n.older.find(dir)
	case len(variants) == 0:
		return f, describe(entries), nil
	case len(variants) == 1:
		return n.findVariant(dir, variants[0]), "", nil
	}
	return f, "", n.missing(dir, "variants only, "+strings.Join(variants, " and "), nil)
}

// findVariant is empty if there is none.
func (n Naming) findVariant(dir, variant string) found {
	for _, name := range n.names(variant) {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil { // a link that leads nowhere is for open to report
			return found{path, variant}
		}
	}
	return found{}
}

// variantOf is the variant that a file's name tells; empty for all other files, shards among them.
func (n Naming) variantOf(name string) string {
	rest, ok := strings.CutPrefix(name, n.stem)
	if !ok {
		return ""
	}
	for _, around := range [][2]string{{n.extension + ".index.", ".json"}, {n.extension + ".", ".index.json"}, {".", n.extension}} {
		v, before := strings.CutPrefix(rest, around[0])
		v, behind := strings.CutSuffix(v, around[1])
		if before && behind && v != "" && !strings.ContainsAny(v, ".-") {
			return v
		}
	}
	return ""
}

// missing is the Error of a folder without weights of the right name.
func (n Naming) missing(dir, got string, err error) error {
	names := slices.Compact(n.names(""))
	return &Error{File: dir, Expected: strings.Join(names, " or ") + ", or one variant of them", Got: got, Err: err}
}

// describe says what a folder without weights of the right name has instead.
func describe(entries []os.DirEntry) string {
	var others []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case extension, pickled, ".pt", ".pth", ".ckpt":
			others = append(others, e.Name())
		}
	}
	if len(others) == 0 {
		return "none of them"
	}
	return strings.Join(others, ", ")
}
