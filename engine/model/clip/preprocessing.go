package clip

import (
	"encoding/json"
	"fmt"

	"github.com/triptych-serving/triptych/engine/config"
)

// Preprocessing is how an image processor of CLIP makes a picture ready: its short side is scaled to the encoder's by a
// bicubic filter, the middle is cut out, and values of 0 to 1 are normalized.
type Preprocessing struct {
	Mean, Std [3]float32 // red, green, blue
}

// ParsePreprocessing reads preprocessor_config.json of an encoder for pictures with sides of so many pixels. What it does not say is
// as CLIP has it. The error is a config.Errors.
func ParsePreprocessing(data []byte, side int) (Preprocessing, error) {
	r, err := config.Parse(data)
	if err != nil {
		return Preprocessing{}, err
	}
	p := Preprocessing{
		Mean: triple(r, "image_mean", [3]float32{0.48145466, 0.4578275, 0.40821073}, false),
		Std:  triple(r, "image_std", [3]float32{0.26862954, 0.26130258, 0.27577711}, true),
	}
	for _, key := range []string{"do_resize", "do_center_crop", "do_rescale", "do_normalize"} {
		r.Unset(key, "true")
	}
	r.Unset("resample", "3") // bicubic
	for key, names := range map[string][]string{"size": {"shortest_edge"}, "crop_size": {"height", "width"}} {
		if !sized(r.Raw(key), side, names) {
			r.Refuse(key, fmt.Sprintf("%d, the encoder's image_size", side))
		}
	}
	return p, r.Err()
}

// triple reads three numbers; those above zero alone, if positive.
func triple(r *config.Reader, key string, def [3]float32, positive bool) [3]float32 {
	raw := r.Raw(key)
	if raw == nil {
		return def
	}
	var v []float32
	fits := json.Unmarshal(raw, &v) == nil && len(v) == 3
	for _, x := range v {
		fits = fits && x >= -1e3 && x <= 1e3 && (!positive || x >= 1e-3)
	}
	if !fits {
		r.Refuse(key, "three numbers, of red, green and blue")
		return def
	}
	return [3]float32(v)
}

// sized reports whether a size is a side: absent, a number, or an object with it under each of some names.
func sized(raw json.RawMessage, side int, names []string) bool {
	var number int
	if raw == nil || json.Unmarshal(raw, &number) == nil {
		return raw == nil || number == side
	}
	var object map[string]int
	if json.Unmarshal(raw, &object) != nil {
		return false
	}
	for _, name := range names {
		if object[name] != side {
			return false
		}
	}
	return true
}
