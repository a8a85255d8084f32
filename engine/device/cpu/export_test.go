package cpu

import (
	"os"

	"github.com/triptych-serving/triptych/engine/device"
)

// SetDiskRoom makes the disk of a device's temporary files have so many bytes left.
func SetDiskRoom(d *Device, bytes int64) {
	d.room = func(*os.File) (int64, bool) { return bytes, true }
}

// Scratch is a run's memory, and whether the run is in bands.
func Scratch(r device.Run) (mem []byte, banded bool) {
	switch r := r.(type) {
	case *run:
		return r.arena.mem, false
	case *bandedRun:
		return r.arena.mem, true
	}
	return nil, false
}

// Packed is the memory of weights.
func Packed(w device.Weights) []byte { return w.(*weights).arena.mem }
