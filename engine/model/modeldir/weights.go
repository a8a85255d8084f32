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
	Watch(p *weights.Prints)
	Sums(p *weights.Prints, names []string) (sums []uint32, known bool)
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
	return append(out, folder+": ignores tensors that the network does not have: "+someOf(surplus))
}

// someOf names the first few of names, and how many more there are.
func someOf(names []string) string {
	var shown []string
	for _, name := range names[:min(len(names), shownSurplus)] {
		shown = append(shown, fmt.Sprintf("%.100q", name))
	}
	text := strings.Join(shown, ", ")
	if more := len(names) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// IgnoredKeys warns of keys of a config file, named within the model, that its class does not know; nil if there are none.
func IgnoredKeys(file string, keys []string) []string {
	if len(keys) == 0 {
		return nil
	}
	return []string{file + ": ignores keys that its class does not have: " + someOf(keys)}
}

// keyWarnings are of the config of a network in a folder of a model, which was read before.
func keyWarnings(model, folder string, unknown func(config []byte) []string) []string {
	const file = "config.json"
	data, err := readConfig(filepath.Join(model, folder, file))
	if err != nil {
		return nil
	}
	return IgnoredKeys(folder+"/"+file, unknown(data))
}
