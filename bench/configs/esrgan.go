package configs

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/rrdb"
	"github.com/triptych-serving/triptych/engine/nn"
)

// ESRGAN lists the parameters of an upscaler of the size of RealESRGAN_x4plus (Wang et al. 2021, arXiv 2107.10833).
func ESRGAN() *device.Manifest {
	s := nn.NewScope(Unwritten{})
	rrdb.New(s, rrdb.Config{Features: 64, Growth: 32, Blocks: 23, Upsamples: 2, Unshuffle: 1, Naming: rrdb.NewNames})
	return s.Manifest()
}
