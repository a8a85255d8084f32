package family

import (
	"errors"
	"image"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/stage"
)

// What image files have in common, whoever draws what is in them.
const (
	Format     = "format"     // option
	Quality    = "quality"    // option
	Parameters = "parameters" // value: how the image was made, as text, which the file carries
)

// FileOptions are the specs of an image file's format and quality.
func FileOptions() []stage.OptionSpec {
	return []stage.OptionSpec{
		{Name: Format, Type: stage.Text, Choices: stage.ImageFormats(), Default: stage.TextOption(stage.PNG)},
		{Name: Quality, Type: stage.Int, Min: 1, Max: 100, Default: stage.IntOption(imaging.DefaultQuality)},
	}
}

// ParametersPort is where a turn that makes image files takes Parameters.
func ParametersPort() stage.Port {
	return stage.Port{Name: Parameters, Media: "text/plain", Optional: true}
}

// FileFormat is how a request wants its image written, to be asked before the work: what no file can carry is InvalidField.
func FileFormat(req stage.WorkRequest) (o imaging.Options, err error) {
	if o.Format, err = imaging.ParseFormat(req.Options[Format].Text); err != nil {
		return o, err
	}
	o.Quality = int(req.Options[Quality].Int)
	if text, ok := req.Values.Get(Parameters); ok {
		o.Text = []imaging.Text{{Key: Parameters, Value: string(text.File.Data)}}
	}
	var refused *imaging.Error
	if err := o.Check(); errors.As(err, &refused) {
		return o, stage.Invalid(stage.InvalidField, refused.Subject, refused.Got, refused.Expected)
	}
	return o, nil
}

// ImageFile writes pixels [height, width, 3] in about -1 to 1 as a file.
func ImageFile(pixels []float32, height, width int, o imaging.Options) (*stage.File, error) {
	return File(imaging.FromFloats(pixels, height, width), o)
}

// File is an image as a file.
func File(img *image.RGBA, o imaging.Options) (*stage.File, error) {
	data, err := imaging.Encode(img, o)
	return &stage.File{Media: o.Format.MIME(), WidthPx: img.Rect.Dx(), HeightPx: img.Rect.Dy(), Data: data}, err
}
