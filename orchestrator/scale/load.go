package scale

import (
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// place is a component at the services of a kind, for a model or for all.
type place struct {
	kind             stage.Kind
	component, model string
}

// lacking tells what is still to be loaded.
type lacking struct {
	paces map[stage.Kind]residency.LoadPace
	warm  map[place]bool
	held  map[place]bool // resident at a service
	taken map[place]bool // of a model
}

func lackingOf(s residency.Snapshot) lacking {
	l := lacking{map[stage.Kind]residency.LoadPace{}, map[place]bool{}, map[place]bool{}, map[place]bool{}}
	for _, p := range s.LoadPaces {
		l.paces[p.Kind] = p
	}
	for _, c := range s.Components {
		at := place{kind: c.Kind, component: c.Component}
		switch {
		case c.State == residency.Resident:
			l.held[at] = true
		case c.WarmBytes > 0:
			l.warm[at] = true
		}
	}
	return l
}

// take is how many seconds the loads of a need will last, of what no need of its model before it has taken: weights that one service
// holds are not expected to be loaded at another.
func (l lacking) take(n residency.Need, model string) (seconds float64) {
	for i, name := range n.Components {
		at, own := place{kind: n.Kind, component: name}, place{n.Kind, name, model}
		if l.held[at] || l.taken[own] {
			continue
		}
		l.taken[own] = true
		p, known := l.paces[n.Kind]
		if !known {
			p.FromFiles = 1. / residency.NominalBytesPerSecond
		}
		pace := p.FromFiles
		if l.warm[at] {
			pace = p.FromWarm
		}
		seconds += float64(weights(n, i)) * pace
	}
	return seconds
}

// weights are the bytes of a need's component, the most that any class of services keeps of it.
func weights(n residency.Need, component int) (bytes int64) {
	for _, f := range n.Footprints {
		if component < len(f.Weights) {
			bytes = max(bytes, f.Weights[component].Bytes)
		}
	}
	return bytes
}
