package randommodel

import (
	"errors"
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
	final := filepath.Join(dir, "diffusion_pytorch_model.safetensors")
	f, err := os.Create(final + ".part")
	if err != nil {
		return err
	}
	err = writeWeights(f, name, m, func(int64, int64) {})
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), final); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, index), map[string]string{"_class_name": "Upscaler"})
}
