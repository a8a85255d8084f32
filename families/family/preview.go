package family

import "github.com/triptych-serving/triptych/stage"

// Decoding estimates by a tiny autoencoder, where the latents are.
const (
	TinyDecoder    = "taesd"           // the kind of adapter
	PreviewDecoder = "preview_decoder" // the part, and the option that names a model with it
)

// PreviewDecoderOption is the spec of the option.
func PreviewDecoderOption() stage.OptionSpec {
	return stage.OptionSpec{Name: PreviewDecoder, Type: stage.Text, Max: 256, Shape: true, Adapter: TinyDecoder}
}

// PreviewDecoderSlot is the member of a turn that the option names.
func PreviewDecoderSlot() stage.Member {
	return stage.Member{Component: PreviewDecoder, Option: PreviewDecoder}
}
