package stage

import (
	"math"
	"strconv"
)

// Size writes bytes for people, to a hundredth of the largest unit that they fill, such as 25.43 MiB.
func Size(bytes int64) string { return size(bytes, math.Round) }

// SizeUp is Size rounded up: what is needed, so that it is enough.
func SizeUp(bytes int64) string { return size(bytes, math.Ceil) }

// size is Size, with the hundredths rounded by round.
func size(bytes int64, round func(float64) float64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if bytes < 1<<10 {
		return strconv.FormatInt(bytes, 10) + " B"
	}
	n, unit := float64(bytes)/(1<<10), 0
	for n >= 1<<10 && unit < len(units)-1 {
		n, unit = n/(1<<10), unit+1
	}
	return strconv.FormatFloat(round(n*100)/100, 'f', -1, 64) + " " + units[unit]
}

// Count writes how many there are of what thing names in the singular: 1 step, 2 steps.
func Count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return strconv.Itoa(n) + " " + thing
}
