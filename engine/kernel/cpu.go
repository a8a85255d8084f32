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
	AVX512  = "avx512"  // and with AVX-512 F, BW, DQ and VL
)

// useAVX2 and useAVX512 are the selected variant; AVX-512 includes AVX2, for the kernels that have no form of their own.
// They are written at start and by Select, which must not run beside a kernel.
var (
	useAVX2   bool
	useAVX512 bool
	envErr    error
)

func init() {
	if envErr = Select(os.Getenv(Env)); envErr != nil {
		useAVX2, useAVX512 = hasAVX2, hasAVX512
	}
}

// HasBF16 tells whether the variant multiplies bfloat16 by instructions made for it, AVX512_BF16. Without them it is done
// in plain Go, for tests.
func HasBF16() bool { return useAVX512 && hasBF16 }

// Check returns the error of a TRIPTYCH_CPU that this build on this machine cannot honour. A device asks before it
// opens; the kernels themselves go on working with the best variant.
func Check() error { return envErr }

// Variant returns the name of the variant in use.
func Variant() string {
	switch {
	case useAVX512:
		return AVX512
	case useAVX2:
		return AVX2
	}
	return Generic
}

// Variants returns the names Select accepts here, the best one first.
func Variants() []string {
	switch {
	case hasAVX512:
		return []string{AVX512, AVX2, Generic}
	case hasAVX2:
		return []string{AVX2, Generic}
	}
	return []string{Generic}
}

// Select forces a variant by name; the empty name means the best one here. After an error nothing has changed.
// It must not be called while another goroutine runs a kernel.
func Select(name string) error {
	const build = "needs an amd64 build without the tag purego, and a CPU with AVX2, FMA and F16C"
	switch {
	case name == "":
		useAVX2, useAVX512 = hasAVX2, hasAVX512
	case name == Generic:
		useAVX2, useAVX512 = false, false
	case name == AVX2 && hasAVX2:
		useAVX2, useAVX512 = true, false
	case name == AVX512 && hasAVX512:
		useAVX2, useAVX512 = true, true
	case name == AVX2:
		return fmt.Errorf("kernel: select variant %q: "+build, name)
	case name == AVX512:
		return fmt.Errorf("kernel: select variant %q: "+build+", and AVX-512 F, BW, DQ and VL", name)
	default:
		return fmt.Errorf("kernel: select variant %q: unknown, want %q, %q or %q", name, Generic, AVX2, AVX512)
	}
	return nil
}
