package kernels

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/bench/configs"
	"github.com/triptych-serving/triptych/engine/device"
)

//go:generate go run .. shapes shapes.json

//go:embed shapes.json
var listed []byte

// Entry is a shape and how often each network has it.
type Entry struct {
	Shape
	Uses map[string]int `json:"uses"`
	// Main marks what makes up most of the work of its kind in a network: what is timed unless all are asked for.
	Main bool `json:"main,omitempty"`
}

// List is the table of shapes in the repository.
func List() ([]Entry, error) {
	var out []Entry
	if err := json.Unmarshal(listed, &out); err != nil {
		return nil, fmt.Errorf("kernels: shapes.json: %w", err)
	}
	return out, nil
}

// Record makes that table from the configs of the networks.
func Record() ([]Entry, error) {
	networks, err := configs.Networks()
	if err != nil {
		return nil, err
	}
	var order []string
	entries := map[string]*Entry{}
	for _, n := range networks {
		for _, op := range n.Tape.Ops() {
			if _, gather := op.(*device.Embed); gather {
				continue // its time is nothing beside the first product's
			}
			s, ok := shapeOf(n.Tape.Manifest(), op)
			if !ok {
				return nil, fmt.Errorf("kernels: %s has an op %T that is not known here", n.Name, op)
			}
			key, err := json.Marshal(s)
			if err != nil {
				return nil, err
			}
			e := entries[string(key)]
			if e == nil {
				e = &Entry{Shape: s, Uses: map[string]int{}}
				entries[string(key)], order = e, append(order, string(key))
			}
			e.Uses[n.Name]++
		}
	}
	var out []Entry
	for _, key := range order {
		out = append(out, *entries[key])
	}
	for _, n := range networks {
		markMain(out, n.Name)
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return strings.Compare(a.Kind(), b.Kind()) })
	return out, nil
}

// mainPerKind is how many shapes of a kind are timed for each network, the two that take most of its work first.
const mainPerKind = 2

// markMain marks the shapes of a network with most work in all their uses, by kind.
func markMain(list []Entry, network string) {
	work := func(i int) float64 {
		w := list[i].Flops()
		if w == 0 {
			w = list[i].Bytes()
		}
		return w * float64(list[i].Uses[network])
	}
	kinds := map[string][]int{}
	for i := range list {
		if list[i].Uses[network] > 0 {
			kinds[list[i].Kind()] = append(kinds[list[i].Kind()], i)
		}
	}
	for _, at := range kinds {
		slices.SortStableFunc(at, func(a, b int) int {
			switch wa, wb := work(a), work(b); {
			case wa > wb:
				return -1
			case wa < wb:
				return 1
			}
			return 0
		})
		sizes := map[string]bool{} // shapes that differ in what is added to the result take the same time
		for _, i := range at {
			if size := list[i].Size(); len(sizes) < mainPerKind && !sizes[size] {
				list[i].Main, sizes[size] = true, true
			}
		}
	}
}

// Flops counts the floating point operations of a tape's products, convolutions and attentions, as Shape.Flops does.
func Flops(t *device.Tape) float64 {
	sum := 0.0
	for _, op := range t.Ops() {
		if s, ok := shapeOf(t.Manifest(), op); ok {
			sum += s.Flops()
		}
	}
	return sum
}
