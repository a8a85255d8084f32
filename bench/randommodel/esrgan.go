package randommodel

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/triptych-serving/triptych/bench/configs"
)

// WriteESRGAN writes 33 MB: an upscaler of the size of RealESRGAN_x4plus. Files that are there are replaced.
func WriteESRGAN(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	final := filepath.Join(dir, "diffusion_pytorch_model.safetensors")
	f, err := os.Create(final + ".part")
	if err != nil {
		return err
	}
	err = writeWeights(f, "esrgan", configs.ESRGAN(), func(int64, int64) {})
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), final); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, index), map[string]string{"_class_name": "Upscaler"})
}
