package stage

import (
	"math"
	"strings"
	"testing"
)

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		-1: "-1 B", 0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 26660044: "25.42 MiB", 25 << 20: "25 MiB",
		64 << 30: "64 GiB", math.MaxInt64: "8 EiB",
	} {
		if got := Size(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
}

// TestSizesOfErrors: what people read has units, what programs read is exact; and what is needed is never told as what there is.
func TestSizesOfErrors(t *testing.T) {
	for _, e := range []*Error{
		DoesNotFit(KindDenoiser, "m", 25<<20+1, 25<<20, 30<<20),
		Busy(KindDenoiser, "m", 25<<20+1, 25<<20, 30<<20, 3<<20, 2<<20),
	} {
		for _, want := range []string{"25.01 MiB", " 25 MiB", "30 MiB"} {
			if !strings.Contains(e.Message, want) || strings.Contains(e.Message, "26214401") {
				t.Errorf("%s: want %s", e.Message, want)
			}
		}
		if e.Metadata["needed_bytes"] != "26214401" || e.Metadata["available_bytes"] != "26214400" {
			t.Errorf("%v", e.Metadata)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 steps", 1: "1 step", 2: "2 steps", -1: "-1 steps"} {
		if got := Count(n, "step"); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
