package api

import (
	"bytes"
	"fmt"
	"image"
	_ "image/jpeg" // the headers of these formats are read
	_ "image/png"
	"maps"
	"slices"
	"strings"

	_ "golang.org/x/image/webp"

	"github.com/triptych-serving/triptych/internal/exif"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// The bounds of files, as documented in generation.proto: of all of a request together, and of pictures. MaxRequestBytes has room for all
// else of a request.
const (
	MaxInputBytes   = 16 << 20
	maxInputSidePx  = 4096
	MaxRequestBytes = MaxInputBytes + 1<<20
)

// filesOf are the files of a request, by the name of the input.
func filesOf(p *triptychv1alpha1.GenerationSpec) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, data := range p.GetInputs() {
		if name == "init_image" || name == "mask" {
			return nil, stage.Invalid(stage.InvalidField, "inputs."+name, size(data), "it in "+name)
		}
		files[name] = data
	}
	for name, data := range map[string][]byte{"init_image": p.GetInitImage(), "mask": p.GetMask()} {
		if len(data) > 0 {
			files[name] = data
		}
	}
	return files, bounded(files)
}

// bounded refuses files that are too large together.
func bounded(files map[string][]byte) error {
	all := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if all += len(files[name]); all > MaxInputBytes {
			return stage.Invalid(stage.InvalidField, name, size(files[name]), fmt.Sprintf("at most %s in all files together", stage.Size(MaxInputBytes)))
		}
	}
	return nil
}

// CheckPictures refuses files of a request, by the name of the input, that are no pictures or too large, as Generate does.
func CheckPictures(files map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if _, err := picture(name, files[name]); err != nil {
			return err
		}
	}
	return bounded(files)
}

func size(data []byte) string { return fmt.Sprintf("%d bytes", len(data)) }

// inputsOf are the files of a request as the values that a recipe has at its start.
func inputsOf(r stage.Recipe, files map[string][]byte) (out stage.Values, err error) {
	var names []string
	for _, port := range r.Inputs {
		names = append(names, port.Name)
		data, ok := files[port.Name]
		delete(files, port.Name)
		switch {
		case !ok && !port.Optional:
			return nil, stage.Invalid(stage.InvalidField, port.Name, "", "a file of type "+port.Media)
		case !ok:
			continue
		}
		file := &stage.File{Media: port.Media, Data: data}
		if strings.HasPrefix(port.Media, "image/") {
			if file, err = picture(port.Name, data); err != nil {
				return nil, err
			}
		}
		out = append(out, stage.Value{Name: port.Name, File: file})
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		return nil, stage.Invalid(stage.InvalidField, name, size(files[name]), "one of the model's inputs: "+strings.Join(names, ", "))
	}
	return out, nil
}

// picture is an image file whose header has been read, in the size that it is seen in.
func picture(name string, data []byte) (*stage.File, error) {
	config, format, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil || !slices.Contains(stage.ImageFormats(), format) || min(config.Width, config.Height) < 1 {
		return nil, stage.Invalid(stage.InvalidField, name, size(data), "a PNG, JPEG or WebP file")
	}
	if max(config.Width, config.Height) > maxInputSidePx {
		return nil, stage.Invalid(stage.SizeUnsupported, name, fmt.Sprintf("%dx%d", config.Width, config.Height), fmt.Sprintf("sides of at most %d pixels", maxInputSidePx))
	}
	if exif.Orientation(data) >= 5 { // it lies on its side
		config.Width, config.Height = config.Height, config.Width
	}
	return &stage.File{Media: "image/" + format, WidthPx: config.Width, HeightPx: config.Height, Data: data}, nil
}

// unused refuses a file that no turn of the job takes, for want of another one.
func unused(spec pipeline.Spec) error {
	for _, name := range spec.Inputs {
		needs := func(t stage.Turn) bool {
			return slices.ContainsFunc(t.Takes, func(p stage.Port) bool { return p.Name == name }) ||
				slices.ContainsFunc(t.Members, func(m stage.Member) bool { return m.With == name })
		}
		if slices.ContainsFunc(spec.Turns(), needs) {
			continue
		}
		beside := "nothing"
		if i := slices.IndexFunc(spec.Recipe.Turns, needs); i >= 0 {
			for _, p := range spec.Recipe.Turns[i].Takes {
				if !p.Optional && !slices.Contains(spec.Inputs, p.Name) {
					beside = p.Name + " beside it"
				}
			}
		}
		return stage.Invalid(stage.InvalidField, name, "a file", beside)
	}
	return nil
}
