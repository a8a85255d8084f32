package latent

import (
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Components are the U-Net and the halves of the autoencoder, in the order they are used.
func (m *Model) Components() []family.Component {
	unet := family.Component{
		Name: family.Name(m.Dir, PartUNet), Kind: stage.KindDenoiser, Folder: modeldir.UNetFolder, Class: modeldir.ClassUNet,
		Open: func(o modeldir.Options) (family.Network, error) {
			return m.Dir.Denoiser(modeldir.UNetFolder, m.UNet, o)
		},
		Settings: m.unetSettings, Warnings: m.Schedule.warnings(), Problem: m.Schedule.Missing,
	}
	decoder := family.VAEDecoder(m.Dir, m.VAE)
	encoder := family.Component{
		Name: family.Name(m.Dir, PartVAEEncoder), Kind: stage.KindDecoder, Folder: modeldir.VAEFolder, Class: modeldir.ClassVAE,
		Open: func(o modeldir.Options) (family.Network, error) {
			return m.Dir.ImageEncoder(modeldir.VAEFolder, m.VAE, o)
		},
		Settings: decoder.Settings,
	}
	if m.fromPictures() {
		return []family.Component{encoder, unet, decoder}
	}
	return []family.Component{unet, decoder, encoder}
}

func (m *Model) unetSettings() (string, error) {
	return fmt.Sprintf("%+v %d %s\n", m.UNet, m.Tokens, m.Schedule.settings), m.Schedule.failed
}
