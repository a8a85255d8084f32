package stagerpc

import (
	"strings"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// formats pairs the image formats with their numbers on the wire.
var formats = map[stage.ImageFormat]stagepb.ImageFormat{
	stage.PNG:  stagepb.ImageFormat_IMAGE_FORMAT_PNG,
	stage.JPEG: stagepb.ImageFormat_IMAGE_FORMAT_JPEG,
	stage.WebP: stagepb.ImageFormat_IMAGE_FORMAT_WEBP,
}

func formatToProto(f stage.ImageFormat) (stagepb.ImageFormat, error) {
	wire, ok := formats[f]
	if !ok {
		return 0, noSuchFormat(f)
	}
	return wire, nil
}

// formatFromProto takes the unspecified format as PNG.
func formatFromProto(wire stagepb.ImageFormat) (stage.ImageFormat, error) {
	if wire == stagepb.ImageFormat_IMAGE_FORMAT_UNSPECIFIED {
		return stage.PNG, nil
	}
	for f, w := range formats {
		if w == wire {
			return f, nil
		}
	}
	return 0, noSuchFormat(wire)
}

func noSuchFormat(value any) error {
	var names []string
	for _, f := range stage.ImageFormats() {
		names = append(names, f.String())
	}
	return stage.Invalid(stage.InvalidField, "format", value, "one of "+strings.Join(names, ", "))
}
