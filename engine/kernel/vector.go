package kernel

// What bounds these two: the memory read and written; their arithmetic is one operation for 8 to 12 bytes.

// Scale is dst *= f.
func Scale(dst []float32, f float32) {
	if len(dst) > 0 {
		scale(dst, f)
	}
}

// Add is dst = a + b.
func Add(dst, a, b []float32) {
	if len(dst) > 0 {
		add(dst, a[:len(dst)], b[:len(dst)])
	}
}
