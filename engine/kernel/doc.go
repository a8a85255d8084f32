// Package kernel holds the hot loops of the CPU device on plain slices: single-threaded, stateless but for the chosen
// variant, importing nothing of the project. How work is cut into calls, packed and shared among cores is the device's business.
//
// Each noun is a file NAME.go with the contract and the argument checks, NAME_generic.go with the loop in plain Go, and on
// amd64 NAME_amd64.s with the same loop for AVX2 and NAME_avx512_amd64.s for AVX-512, generated from _asm by avo. A loop
// without an AVX-512 form runs its AVX2 form in that variant. The build tag purego turns all assembly off.
//
// The VNNI instructions of AVX-512 are not used: they multiply integers, activations rounded to 8 bits are off by up to
// 2e-3 of their range where a whole network may be off by 2e-4, and 16 bits gain at most the double before rounding is paid.
//
// Those of AVX512_BF16 multiply pairs of bfloat16 where a caller asks for it (Product.Pairs): they are no variant of their own,
// and their bytes are written out, since Go's assembler does not know them.
//
// Rules common to all functions:
//   - The length of dst (or of the one slice that is written) says how many elements are computed; the operands must be
//     at least as long and may be longer. Too short an operand panics, as an index out of range would.
//   - dst may be the very same slice as an operand, never one that overlaps it at another offset.
//   - The value of an element depends on its operands only, not on its position or on the length of the slice, so that
//     a caller may cut the work anywhere (sums over a row or a column of course depend on the row). The variants differ
//     among each other by rounding.
//   - Assembly cannot be preempted and delays every garbage collection: keep a call under about 100 microseconds, which
//     is 64 Ki elements for the pointwise functions and 2.5 million multiply-adds for Tile.
package kernel

//go:generate go run -C _asm .
