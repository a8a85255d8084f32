package modeldir

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/ipadapter"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/weights"
)

// The names of further inputs and outputs.
const (
	InputStates      = "states"
	InputClass       = "class"
	InputPlaces      = "places"
	InputQueries     = "queries"
	OutputEmbeddings = "embeddings"
	OutputTokens     = "tokens"
)

// Places are ids from one on, of so many rows: what an id input of numbered places is given.
func Places(rows, first, n int) []int32 {
	out := make([]int32, 0, rows*n)
	for range rows {
		for i := range n {
			out = append(out, int32(first+i))
		}
	}
	return out
}

// ImageEncoderFolder is that of an IP-Adapter's image encoder.
const ImageEncoderFolder = "image_encoder"

// ClassIPAdapter is that of a file with an IP-Adapter.
const ClassIPAdapter = "IPAdapter"

// VisionEncoder is the network from a picture to what an IP-Adapter takes.
type VisionEncoder struct {
	Network
	Config clip.VisionConfig
	model  *clip.Vision
}

// VisionEncoder opens an image encoder of CLIP. The errors are those of Dir.Network.
func (d *Dir) VisionEncoder(folder string, c clip.VisionConfig, o Options) (e *VisionEncoder, err error) {
	e = &VisionEncoder{Config: c}
	var other error
	e.Network, err = d.Network(folder, o, func(s *nn.Scope) {
		e.model = clip.NewVision(s, c)
		refuse := func(got string) {
			other = &Error{Path: s.Source().Where(""), Expected: "a " + clip.ClassVision + " in the names of transformers", Got: got}
		}
		if s.Has("visual.conv1.weight") {
			refuse("one of open_clip (visual.*), which is not converted")
		} else if !s.Has("visual_projection.weight") {
			refuse("an image encoder without visual_projection")
		}
	}, clip.IgnoreVision)
	if err != nil && other != nil {
		err = other
	}
	return e, err
}

// Tape maps InputImage [batch, ImageSize, ImageSize, 3], normalized, the ids InputClass [batch, 1], all 0, and InputPlaces
// [batch, Patches], from 1 on, to OutputStates, the penultimate ones [batch, 1+Patches, HiddenSize], or else to OutputEmbeddings
// [batch, 1+Patches, Projection], the first of which is the picture's.
func (e *VisionEncoder) Tape(batch int, states bool) (*device.Tape, error) {
	shape := Shape{batch}
	if states {
		shape[1] = 1
	}
	return e.Record(shape, func(t *device.Tape) {
		c := e.Config
		h := e.model.States(t, t.Input(InputImage, batch, c.ImageSize, c.ImageSize, 3), t.IDs(InputClass, batch, 1), t.IDs(InputPlaces, batch, c.Patches()))
		if states {
			t.Output(OutputStates, h)
			return
		}
		t.Output(OutputEmbeddings, e.model.Embed(t, h))
	})
}

// IPAdapter is the network from what an image encoder tells to the keys and values that a U-Net takes of it.
type IPAdapter struct {
	Network
	Config ipadapter.Config
	States int // how many it takes of a picture: 1, or all that its image encoder has
	model  *ipadapter.Model
	name   string
}

// IPAdapter opens an IP-Adapter beside an image encoder. The errors are those of Dir.Network, an ipadapter.Error, and an Error where the
// image encoder is another one's.
func (d *Dir) IPAdapter(folder string, of clip.VisionConfig, o Options) (a *IPAdapter, err error) {
	a = &IPAdapter{name: d.Name()}
	var unknown error
	a.Network, err = d.Network(folder, o, func(s *nn.Scope) {
		if a.Config, unknown = ipadapter.Infer(s.Source()); unknown == nil {
			a.model = ipadapter.New(s, a.Config)
		}
	}, nil)
	if err == nil && unknown == nil {
		unknown = a.beside(of)
	}
	if unknown != nil {
		_ = a.Close() // read-only
		return nil, unknown
	}
	return a, err
}

// CheckIPAdapter refuses a file that is no IP-Adapter that can be used, whatever is beside it; a folder is not looked into. The errors are those
// of the weights, and an ipadapter.Error.
func (d *Dir) CheckIPAdapter() error {
	if !d.file {
		return nil
	}
	set, err := weights.OpenFile(d.path)
	if err != nil {
		return err
	}
	defer func() { _ = set.Close() }() // read-only
	_, err = ipadapter.Infer(set)
	return err
}

// beside takes the number of states from the image encoder, whose widths have to fit.
func (a *IPAdapter) beside(of clip.VisionConfig) error {
	width, what := of.Projection, "projection_dim"
	a.States = 1
	if a.Config.Resampler != nil {
		width, what, a.States = of.HiddenSize, "hidden_size", 1+of.Patches()
	}
	if width != a.Config.ImageDim {
		return &Error{
			Path: a.weights.Where(""), Expected: fmt.Sprintf("an image encoder of %s %d, in a folder %s", what, a.Config.ImageDim, ImageEncoderFolder), Got: fmt.Sprintf("one of %d", width),
		}
	}
	return nil
}

// Name is the model's.
func (a *IPAdapter) Name() string { return a.name }

// Tape maps InputStates [batch, States, ImageDim] and, with a resampler, the ids InputQueries [batch, Tokens], from 0 on, to
// OutputTokens [batch, Tokens, ContextDim], and to InputKeys and InputValues of each of Config.Attentions, in order.
func (a *IPAdapter) Tape(batch int) (*device.Tape, error) {
	return a.Record(Shape{batch}, func(t *device.Tape) {
		var queries device.Array
		if a.Config.Resampler != nil {
			queries = t.IDs(InputQueries, batch, a.Config.Tokens)
		}
		tokens := a.model.Tokens(t, t.Input(InputStates, batch, a.States, a.Config.ImageDim), queries)
		t.Output(OutputTokens, tokens)
		for i, kv := range a.model.KeyValues(t, tokens) {
			t.Output(InputKeys(i), kv.K)
			t.Output(InputValues(i), kv.V)
		}
	})
}
