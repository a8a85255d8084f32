package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/reg"
)

// What may be used is what kernel.hasAVX2 checks for, CMOV, which every amd64 has, and, in functions whose names end in AVX512, kernel.hasAVX512 too,
// and in those that end in BF16 kernel.hasBF16.
var (
	extensions       = []string{"AVX", "AVX2", "FMA3", "F16C", "CMOV"}
	extensionsAVX512 = append([]string{"AVX512F", "AVX512BW", "AVX512DQ", "AVX512VL"}, extensions...)
	extensionsBF16   = append([]string{"AVX512_BF16"}, extensionsAVX512...)
)

// verify finds what the assembler accepts and the processor does not, or only slowly: registers 16 to 31 (avo hands
// them out when 16 are not enough; they need AVX-512), instructions of another extension, SSE forms among AVX ones (each
// waits for the dirty upper halves), and a return that leaves the upper halves dirty.
func verify(f *ir.Function) []error {
	allowed, registers := extensions, reg.Index(16)
	switch {
	case strings.HasSuffix(f.Name, "AVX512"):
		allowed, registers = extensionsAVX512, 32
	case strings.HasSuffix(f.Name, "BF16"):
		allowed, registers = extensionsBF16, 32
	}
	var problems []error
	complain := func(i *ir.Instruction, what string) {
		problems = append(problems, fmt.Errorf("%s: %s %v: %s", f.Name, i.Opcode, i.Operands, what))
	}
	vectors, last := false, ""
	for _, i := range f.Instructions() {
		for _, r := range i.Registers() {
			p, ok := r.(reg.Physical)
			switch {
			case !ok:
				complain(i, "register was not allocated")
			case r.Kind() == reg.KindVector:
				vectors = true
				if p.PhysicalIndex() >= registers {
					complain(i, fmt.Sprintf("register %d or above", registers))
				}
				if !strings.HasPrefix(i.Opcode, "V") {
					complain(i, "not a VEX form")
				}
			}
		}
		for _, e := range i.ISA {
			if !slices.Contains(allowed, e) {
				complain(i, "needs "+e)
			}
		}
		if i.Opcode == "RET" && vectors && last != "VZEROUPPER" {
			complain(i, "no VZEROUPPER before it")
		}
		last = i.Opcode
	}
	return problems
}
