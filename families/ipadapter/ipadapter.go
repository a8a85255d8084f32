// Package ipadapter is the family of IP-Adapters (Ye et al. 2023, arXiv 2308.06721), which give models of latent diffusion a
// picture as a prompt: adapters, named in the option of a model that draws.
//
// The package may import families/family, families/latent, stage and the engine.
package ipadapter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/latent"
	"github.com/triptych-serving/triptych/stage"
)

// Family is IP-Adapters.
func Family() family.Family { return family.Family{Class: modeldir.ClassIPAdapter, Open: open} }

// model is an IP-Adapter: its own weights, and the image encoder beside them.
type model struct {
	dir     *modeldir.Dir
	folders *modeldir.Dir // in which the image encoder's is
	vision  clip.VisionConfig
	plus    bool // it takes all states of a picture
	image   clip.Preprocessing
}

// open reads the image encoder's configs and looks at the adapter's shapes, which tell what of the encoder it takes.
func open(dir *modeldir.Dir) (*family.Model, error) {
	m := &model{dir: dir}
	where, err := m.find()
	if err != nil {
		if other := dir.CheckIPAdapter(); other != nil {
			return nil, other // which no image encoder would help
		}
		return nil, err
	}
	if m.vision, err = modeldir.Config(m.folders, modeldir.ImageEncoderFolder, clip.ParseVisionConfig); err != nil {
		return nil, err
	}
	if m.image, err = m.preprocessing(); err != nil {
		return nil, err
	}
	net, err := dir.IPAdapter("", m.vision, modeldir.Options{Outline: true})
	if err != nil {
		return nil, err
	}
	m.plus = net.Config.Resampler != nil
	if err := net.Close(); err != nil {
		return nil, err
	}
	settings := func() (string, error) { return fmt.Sprintf("%+v %+v %v\n", m.vision, m.image, m.plus), nil }
	return &family.Model{
		Class: dir.Class(), Adapter: latent.AdapterIPAdapter, Folders: []string{"", where},
		Components: []family.Component{
			{
				Name: family.Name(dir, latent.PartImageEncoder), Kind: stage.KindEncoder, Folder: where, Class: clip.ClassVision,
				Open: m.openEncoder, Settings: settings,
			},
			{
				Name: family.Name(dir, latent.PartIPAdapter), Kind: stage.KindDenoiser, Class: modeldir.ClassIPAdapter,
				Open: func(o modeldir.Options) (family.Network, error) { return dir.IPAdapter("", m.vision, o) }, Settings: settings,
			},
		},
	}, nil
}

func (m *model) openEncoder(o modeldir.Options) (family.Network, error) {
	e, err := m.folders.VisionEncoder(modeldir.ImageEncoderFolder, m.vision, o)
	if err != nil {
		return nil, err
	}
	return &latent.ImageEncoder{VisionEncoder: e, Model: m.dir.Name(), States: m.plus, Preprocessing: m.image}, nil
}

// find looks for the image encoder: in a folder of the adapter's name, without the extension, or else beside the adapter. where is its
// folder from the adapter's path on.
func (m *model) find() (where string, err error) {
	path := m.dir.Path()
	around, own := filepath.Dir(path), strings.TrimSuffix(path, filepath.Ext(path))
	for _, folder := range []string{own, around} {
		encoder := filepath.Join(folder, modeldir.ImageEncoderFolder)
		if info, err := os.Stat(encoder); err == nil && info.IsDir() {
			m.folders = modeldir.At(folder)
			return filepath.Rel(path, encoder)
		}
	}
	return "", &modeldir.Error{
		Path:     filepath.Join(around, modeldir.ImageEncoderFolder),
		Expected: fmt.Sprintf("a folder with config.json and weights of a %s, here or in %s", clip.ClassVision, filepath.Base(own)), Got: "nothing",
	}
}

// preprocessing reads how pictures are made ready, which is as CLIP does where no file tells.
func (m *model) preprocessing() (clip.Preprocessing, error) {
	const file = "preprocessor_config.json"
	data, err := m.folders.Read(modeldir.ImageEncoderFolder, file)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte("{}"), nil
	}
	if err != nil {
		return clip.Preprocessing{}, err
	}
	p, err := clip.ParsePreprocessing(data, m.vision.ImageSize)
	return p, config.InFile(err, m.folders.File(modeldir.ImageEncoderFolder, file))
}
