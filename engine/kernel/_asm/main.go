// Command _asm generates the kernels of package kernel in the folder above: for every noun NAME_amd64.s for AVX2 and,
// for those that have an AVX-512 form, NAME_avx512_amd64.s.
// It is a module of its own, so that avo is no dependency of the project.
package main

import (
	"errors"
	"log"
	"os"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

type noun struct {
	name  string
	write func(*gen)
}

func main() {
	for _, noun := range []noun{
		{"activation", activation},
		{"attention", attention},
		{"finite", finite},
		{"norm", norm},
		{"pack", pack},
		{"peak", peak},
		{"quantize", quantize},
		{"stream", stream},
		{"tile", tile},
		{"vector", vector},
		{"widen", widen},
		{"winograd", winograd},
	} {
		if err := generate("../"+noun.name+"_amd64.s", "AVX2", noun.write); err != nil {
			log.Fatalf("%s: %v", noun.name, err)
		}
	}
	if err := generate("../bf16_amd64.s", "AVX512", bf16); err != nil {
		log.Fatalf("bf16: %v", err)
	}
	for _, noun := range []noun{ // the others run their AVX2 form
		{"activation", activation},
		{"attention", attention},
		{"norm", norm},
		{"peak", peakAVX512},
		{"tile", tile},
		{"vector", vector},
		{"widen", widenAVX512},
		{"winograd", winograd},
	} {
		if err := generate("../"+noun.name+"_avx512_amd64.s", "AVX512", noun.write); err != nil {
			log.Fatalf("%s for AVX-512: %v", noun.name, err)
		}
	}
}

func generate(path, isa string, write func(*gen)) error {
	g := &gen{Context: build.NewContext(), isa: isa, constants: map[string]constant{}, prologues: map[string][]ir.Node{}}
	g.ConstraintExpr("!purego")
	write(g)
	file, err := g.Result()
	if err != nil {
		return err
	}
	for _, f := range file.Functions() {
		f.Nodes = append(g.prologues[f.Name], f.Nodes...)
	}
	if err := pass.Compile.Execute(file); err != nil {
		return err
	}
	var problems []error
	for _, f := range file.Functions() {
		problems = append(problems, verify(f)...)
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	for _, f := range file.Functions() {
		encode(f)
	}
	text, err := printer.NewGoAsm(printer.Config{Argv: []string{"go", "generate", "./engine/kernel"}, Pkg: "kernel"}).Print(file)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
