package kernel

// StreamBlock is the number of elements that StreamRead and StreamCopy move at a time; a rest behind the last whole
// block is left out.
const StreamBlock = 64

// StreamRead loads every block of x and does nothing with it. Timing it gives the read bandwidth of the level of memory
// that x fits into, on the same core at the same clock.
// What bounds it: the loads, two vectors a cycle at best.
func StreamRead(x []float32) {
	if n := len(x) / StreamBlock; n > 0 {
		streamRead(x, n)
	}
}

// StreamCopy copies the blocks of x to dst, which has as many elements, with plain stores: as the kernels write, and
// unlike a copy whose stores go round the caches.
// What bounds it: the loads and stores, and beyond the caches the reading of the lines that are written.
func StreamCopy(dst, x []float32) {
	if n := len(x) / StreamBlock; n > 0 {
		streamCopy(dst[:len(x)], x, n)
	}
}
