package randommodel

import (
	"os"
	"path/filepath"

	"github.com/triptych-serving/triptych/bench/configs"
	"github.com/triptych-serving/triptych/engine/device"
)

// WriteESRGAN writes 33 MB: an upscaler of the size of RealESRGAN_x4plus. Files that are there are replaced.
func WriteESRGAN(dir string) error { return writeUpscaler(dir, "esrgan", configs.ESRGAN()) }

// WriteESRGANx2 writes as much: an upscaler of the size of RealESRGAN_x2plus. Files that are there are replaced.
func WriteESRGANx2(dir string) error { return writeUpscaler(dir, "esrgan_x2", configs.ESRGANx2()) }

func writeUpscaler(dir, name string, m *device.Manifest) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	list := parameters(m, false)
	if err := writeFile(filepath.Join(dir, "diffusion_pytorch_model.safetensors"), name, list, func(int64, int64) {}); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, index), map[string]string{"_class_name": "Upscaler"})
}
