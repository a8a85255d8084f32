package modeldir

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/weights"
)

// weightFile is what a network needs of its open weight files.
type weightFile interface {
	nn.Source
	device.Source
	Variant() string
	Close() error
}

// namingOf is how the library that a network's folder belongs to names its weights.
func namingOf(folder string) weights.Naming {
	if folder == textEncoderFolder || folder == textEncoder2Folder {
		return weights.Transformers()
	}
	return weights.Diffusers()
}

// openWeights opens the weight files in the folder of a network. Errors are a weights.Error.
func openWeights(dir string) (weightFile, error) {
	set, err := weights.OpenDir(dir, namingOf(filepath.Base(dir)))
	if err != nil {
		return nil, err
	}
	return set, nil
}

// shownSurplus bounds a warning: a file of another network has thousands of tensors.
const shownSurplus = 5

// warnings tells what is odd about weight files that are used all the same.
func warnings(folder string, files interface {
	Variant() string
	Where(name string) string
}, surplus []string,
) []string {
	var out []string
	if files.Variant() != "" {
		out = append(out, fmt.Sprintf("%s: uses the %s variant, there are no other weights than %s", folder, files.Variant(), filepath.Base(files.Where(""))))
	}
	if len(surplus) == 0 {
		return out
	}
	var shown []string
	for _, name := range surplus[:min(len(surplus), shownSurplus)] {
		shown = append(shown, fmt.Sprintf("%.100q", name))
	}
	text := fmt.Sprintf("%s: ignores tensors that the network does not have: %s", folder, strings.Join(shown, ", "))
	if more := len(surplus) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return append(out, text)
}
