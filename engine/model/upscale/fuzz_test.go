package upscale_test

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/model/taesd"
	"github.com/triptych-serving/triptych/engine/model/upscale"
	"github.com/triptych-serving/triptych/engine/nn"
	tensorpkg "github.com/triptych-serving/triptych/engine/tensor"
)

// listed is a source of tensors that are listed by lines of a name and sizes.
type listed map[string]tensorpkg.Shape

func (l listed) Info(name string) (tensorpkg.DType, tensorpkg.Shape, bool) {
	s, ok := l[name]
	return tensorpkg.F16, s, ok
}
func (l listed) TypeName(string) string { return "F16" }
func (l listed) Where(string) string    { return "file" }
func (l listed) Names() []string        { return slices.Sorted(maps.Keys(l)) }

// FuzzOf: whatever the tensors of a file are called, it is a network whose parts are bounded, or an Error.
func FuzzOf(f *testing.F) {
	f.Add("conv_first.weight 4 3 3 3\nbody.0.rdb1.conv1.weight 3 4 3 3\nconv_up1.weight 4 4 3 3")
	f.Add("params.body.0.weight 6 3 3 3\nparams.body.1.weight 6\nparams.body.2.weight 12 6 3 3")
	f.Add("model.0.weight 4 3 3 3\nmodel.1.sub.0.RDB1.conv1.0.weight 3 4 3 3\nmodel.65000.weight 3 4 3 3")
	f.Add("1.weight 8 4 3 3\n1.bias 8\n3.conv.0.weight 8 8 3 3\n5.weight 8 8 3 3\n13.weight 3 8 3 3\n13.bias 3")
	f.Fuzz(func(t *testing.T, text string) {
		src := listed{}
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			if len(fields) == 0 || len(fields) > 5 {
				continue
			}
			var shape tensorpkg.Shape
			for _, size := range fields[1:] {
				n, err := strconv.Atoi(size)
				if err != nil || n < 0 {
					return
				}
				shape = append(shape, n)
			}
			src[fields[0]] = shape
		}
		c, err := upscale.Of(src)
		var refused *upscale.Error
		switch {
		case err == nil:
			s := nn.NewScope(src)
			upscale.New(s, c)
			if n := len(s.Manifest().Params); n > 10_000 || c.Scale() < 1 || c.Scale() > 16 {
				t.Errorf("%d parameters, scale %d", n, c.Scale())
			}
			_, _ = c.Whole(s), c.PixelBytes()
		case !errors.As(err, &refused):
			t.Error(err)
		}
		for _, decodes := range []bool{true, false} {
			if half, ok, err := taesd.Of(src, decodes); ok && err == nil {
				taesd.New(nn.NewScope(src), half)
			}
		}
	})
}
