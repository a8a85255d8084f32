package stage

import (
	"fmt"
	"strings"
)

// CheckSide refuses a side of an image or a latent that is no multiple of step from step to most, as SizeUnsupported. The
// error names the next sides that are, in the unit that the value is in.
func CheckSide(field string, value, step, most int, unit string) error {
	if value > 0 && value <= most && value%step == 0 {
		return nil
	}
	var near []string
	below := min(value, most) / step * step
	if below > 0 {
		near = append(near, fmt.Sprint(below))
	}
	if above := max(below, 0) + step; above <= most {
		near = append(near, fmt.Sprint(above))
	}
	accepted := fmt.Sprintf("a multiple of %d up to %d %s, such as %s", step, most, unit, strings.Join(near, " or "))
	if step == 1 {
		accepted = fmt.Sprintf("1 to %d %s", most, unit)
	}
	return Invalid(SizeUnsupported, field, value, accepted)
}

// NoDefaultSampler is a request that names no sampler, of a model whose own cannot be used; problem says why.
func NoDefaultSampler(samplers []string, problem string) *Error {
	return Invalid(SamplerUnsupported, "sampler", "", fmt.Sprintf("one of %s, since %s", strings.Join(samplers, ", "), problem))
}
