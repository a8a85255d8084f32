package kernel

// PeakFlops is the number of floating point operations in one round of FMAPeak.
const PeakFlops = 12 * 8 * 2

// FMAPeak runs n rounds of 12 independent 8-wide multiply-adds between registers, or half as many 16-wide ones, and
// nothing else. Timing it gives the peak that Tile is measured against, on the same core at the same clock.
// What bounds it: the FMA units, nothing else.
func FMAPeak(n int) {
	if n > 0 {
		fmaPeak(n)
	}
}
