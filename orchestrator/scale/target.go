package scale

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/stage"
)

// The metadata of a ScaledObject's trigger that are read here.
const (
	keyStage   = "stage"
	keyModels  = "models"
	keySeconds = "targetSeconds"
)

// foreign are those that KEDA reads itself and passes on.
var foreign = []string{"scalerAddress", "enableTLS", "unsafeSsl"}

// The bounds of metadata.
const (
	defaultSeconds = 30.
	minSeconds     = 0.1
	maxTarget      = 86400.
	maxModels      = 256
	maxName        = 255 // bytes, of a model
)

// Target is what a deployment of one kind of stage is sized by.
type Target struct {
	Stage   stage.Kind
	Models  []string // that it serves; empty is all
	Seconds float64  // of work that a replica is meant to have
}

// ParseTarget reads a trigger's metadata. InvalidField, which names the key.
func ParseTarget(metadata map[string]string) (t Target, err error) {
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if !slices.Contains([]string{keyStage, keyModels, keySeconds}, key) && !slices.Contains(foreign, key) {
			return t, invalid(stage.Excerpt(key, maxName), metadata[key], "none of this name, but "+strings.Join([]string{keyStage, keyModels, keySeconds}, ", "))
		}
	}
	var ok bool
	if t.Stage, ok = stage.ParseKind(metadata[keyStage]); !ok {
		return t, invalid(keyStage, metadata[keyStage], "encoder, denoiser or decoder")
	}
	if t.Models, ok = models(metadata[keyModels]); !ok {
		return t, invalid(keyModels, metadata[keyModels], fmt.Sprintf("at most %d names of models, of at most %d bytes each, with commas between them; empty is all", maxModels, maxName))
	}
	if t.Seconds = defaultSeconds; metadata[keySeconds] != "" {
		t.Seconds, err = strconv.ParseFloat(metadata[keySeconds], 64)
		if err != nil || !(t.Seconds >= minSeconds && t.Seconds <= maxTarget) {
			return t, invalid(keySeconds, metadata[keySeconds], fmt.Sprintf("seconds of work for a replica, %v to %v", minSeconds, maxTarget))
		}
	}
	return t, nil
}

// models reads a list; empty is all.
func models(list string) (names []string, ok bool) {
	if strings.TrimSpace(list) == "" {
		return nil, true
	}
	if len(list) > maxModels*(maxName+2) {
		return nil, false
	}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if name == "" || len(name) > maxName || len(names) == maxModels {
			return nil, false
		}
		names = append(names, name)
	}
	return names, true
}

func invalid(key, value, accepted string) error {
	return stage.Invalid(stage.InvalidField, "scalerMetadata."+key, value, accepted)
}

// wants tells whether the work of a model is for the target. While the model is not known, what the request asked for decides; one
// that asked for none may be for any.
func (t Target) wants(model, asked string) bool {
	name := model
	if name == "" {
		name = asked
	}
	return len(t.Models) == 0 || name == "" || slices.Contains(t.Models, name)
}
