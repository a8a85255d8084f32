package stage_test

import (
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

func TestSides(t *testing.T) {
	for _, c := range []struct {
		value, step, most int
		accepted          string // empty if the value is
	}{
		{8, 8, 64, ""},
		{64, 8, 64, ""},
		{9, 8, 64, "a multiple of 8 up to 64 pixels, such as 8 or 16"},
		{7, 8, 64, "a multiple of 8 up to 64 pixels, such as 8"},
		{0, 8, 64, "a multiple of 8 up to 64 pixels, such as 8"},
		{-9, 8, 64, "a multiple of 8 up to 64 pixels, such as 8"},
		{63, 8, 60, "a multiple of 8 up to 60 pixels, such as 56"},
		{1 << 40, 8, 64, "a multiple of 8 up to 64 pixels, such as 64"},
		{0, 1, 64, "1 to 64 pixels"},
		{65, 1, 64, "1 to 64 pixels"},
	} {
		spec := stage.OptionSpec{Type: stage.Int, Unit: "pixels", Multiple: int64(c.step), Max: float64(c.most), Refused: stage.SizeUnsupported}
		err := spec.Check("width", stage.IntOption(int64(c.value)))
		var e *stage.Error
		if errors.As(err, &e) != (c.accepted != "") || e != nil && (e.Reason != stage.SizeUnsupported || e.Metadata["accepted"] != c.accepted || e.Metadata["field"] != "width") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
