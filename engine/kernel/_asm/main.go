// Command _asm generates the AVX2 kernels of package kernel: NAME_amd64.s in the folder above, for every noun.
// It is a module of its own, so that avo is no dependency of the project.
package main

import (
	"errors"
	"log"
	"os"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

func main() {
	for _, noun := range []struct {
		name  string
		write func(*gen)
	}{
		{"activation", activation},
		{"attention", attention},
		{"norm", norm},
		{"pack", pack},
		{"peak", peak},
		{"quantize", quantize},
		{"tile", tile},
		{"vector", vector},
		{"widen", widen},
		{"winograd", winograd},
	} {
		if err := generate("../"+noun.name+"_amd64.s", noun.write); err != nil {
			log.Fatalf("%s: %v", noun.name, err)
		}
	}
}

func generate(path string, write func(*gen)) error {
	g := &gen{Context: build.NewContext(), constants: map[string]constant{}}
	g.ConstraintExpr("!purego")
	write(g)
	file, err := g.Result()
	if err != nil {
		return err
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
	text, err := printer.NewGoAsm(printer.Config{Argv: []string{"go", "generate", "./engine/kernel"}, Pkg: "kernel"}).Print(file)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
