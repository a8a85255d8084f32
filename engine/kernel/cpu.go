package kernel

import (
	"fmt"
	"os"
)

// Env is the environment variable that forces a variant at start.
const Env = "TRIPTYCH_CPU"

// The names of the variants.
const (
	Generic = "generic" // plain Go
	AVX2    = "avx2"    // amd64 with AVX2, FMA and F16C
)

// useAVX2 is the selected variant. It is written at start and by Select, which must not run beside a kernel.
var (
	useAVX2 bool
	envErr  error
)

func init() {
	if envErr = Select(os.Getenv(Env)); envErr != nil {
		useAVX2 = hasAVX2
	}
}

// Check returns the error of a TRIPTYCH_CPU that this build on this machine cannot honour. A device asks before it
// opens; the kernels themselves go on working with the best variant.
func Check() error { return envErr }

// Variant returns the name of the variant in use.
func Variant() string {
	if useAVX2 {
		return AVX2
	}
	return Generic
}

// Variants returns the names Select accepts here, the best one first.
func Variants() []string {
	if hasAVX2 {
		return []string{AVX2, Generic}
	}
	return []string{Generic}
}

// Select forces a variant by name; the empty name means the best one here. After an error nothing has changed.
// It must not be called while another goroutine runs a kernel.
func Select(name string) error {
	switch {
	case name == "":
		useAVX2 = hasAVX2
	case name == Generic:
		useAVX2 = false
	case name == AVX2 && hasAVX2:
		useAVX2 = true
	case name == AVX2:
		return fmt.Errorf("kernel: select variant %q: "+
			"needs an amd64 build without the tag purego, and a CPU with AVX2, FMA and F16C", name)
	default:
		return fmt.Errorf("kernel: select variant %q: unknown, want %q or %q", name, Generic, AVX2)
	}
	return nil
}
