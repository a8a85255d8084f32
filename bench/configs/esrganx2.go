package configs

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/rrdb"
	"github.com/triptych-serving/triptych/engine/nn"
)

// ESRGANx2 lists the parameters of an upscaler of the size of RealESRGAN_x2plus: that of ESRGAN on squares of two pixels.
func ESRGANx2() *device.Manifest {
	s := nn.NewScope(Unwritten{})
	rrdb.New(s, rrdb.Config{Features: 64, Growth: 32, Blocks: 23, Upsamples: 2, Unshuffle: 2, Naming: rrdb.NewNames})
	return s.Manifest()
}
