// Package residency decides who is in device memory.
//
// The decisions are made by a ledger without goroutines, clock or I/O: an input goes in, and what is
// to be done (effects) and why (events) come out. The Keeper around it owns the ledger with one
// goroutine, runs the loads and evictions, and answers those who ask for a stage.
//
// The law: a request's weights and scratch are reserved before anything loads, and what is reserved
// on a device never grows past its budget. Evicted bytes count until they are really back.
//
// Files are named by what they are of: state_ ones of the ledger, its inputs and its sums; decide_ ones of what it comes to, and
// decide.go of their order; act.go of the effects that a Keeper carries out; and the others of what callers see.
//
// The package may import stage and the standard library.
package residency

import (
	"fmt"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/stage"
)

// StageID is the address of a service; services of one kind are replicas of each other.
type StageID string

// JobID names a job, which asks for one stage after another.
type JobID string

// RequestID counts what was asked of a Keeper, from 1.
type RequestID uint64

// Device is memory that stages share: those that name the same host and device.
type Device struct {
	Host, Name  string
	BudgetBytes int64 // for weights and scratch; 0 is no limit; when stages disagree, the smallest limit counts
}

// Key names the device in events: host/device.
func (d Device) Key() string { return d.Host + "/" + d.Name }

// Need is a set of components to be resident together at one service, and what that takes.
type Need struct {
	Kind       stage.Kind // of the services, in events and reasons
	Components []string
	// Footprints tell what it takes, in bytes, by the stage.Info.Planning of the service that will do the work. Weights are in
	// the order of Components. Services that plan otherwise are not asked.
	Footprints map[string]stage.Footprint
	// Identities are those of the weights the caller has worked with, by component: services that are known to have others
	// are not asked while there are any else.
	Identities map[string]string
	// Work is what it computes. It decides nothing.
	Work Workload
}

// Workload is what a turn computes, for who expects how long that takes.
type Workload struct {
	Model       string // that was asked for; components may be those of an equal one
	Turn, Shape string // an evaluation takes alike long where both are equal
	Evaluations int    // of the network; 1 of a turn that does not count them
}

// String names the need in reasons.
func (n Need) String() string { return fmt.Sprintf("%v %s", n.Kind, strings.Join(n.Components, " + ")) }

// equal tells whether two needs are for the same set.
func (n Need) equal(m Need) bool { return slices.Equal(n.Components, m.Components) }

func (n Need) has(component string) bool { return slices.Contains(n.Components, component) }

// first is the component that does the work.
func (n Need) first() string {
	if len(n.Components) == 0 {
		return ""
	}
	return n.Components[0]
}

// bytes are all that a footprint has, weights and scratch.
func bytes(f stage.Footprint) int64 { return f.WeightsBytes() + f.ScratchBytes }

// LeastBytes are what the need takes at least, wherever it is served.
func (n Need) LeastBytes() (least int64) {
	least = -1
	for _, f := range n.Footprints {
		if b := bytes(f); least < 0 || b < least {
			least = b
		}
	}
	return max(least, 0)
}

// streaming says in words that part of a component's weights is kept, empty if all are.
func streaming(w stage.Weights, scratch int64, d *device) string {
	if w.Bytes >= w.WholeBytes {
		return ""
	}
	return fmt.Sprintf("; of its %s bytes %s are kept and the others streamed: all, with %s of scratch, exceed the budget of %s",
		count(w.WholeBytes), count(w.Bytes), count(scratch), count(d.BudgetBytes))
}

// State is what is known about a component at one service.
type State uint8

// The states. All but Absent and Warm count on the device; what is Warm is packed in the host's memory.
const (
	Absent State = iota
	Loading
	Resident
	Evicting // or, with no bytes on the device, dropped from the host's memory
	Warm
)

// String is the state's name.
func (s State) String() string {
	return [...]string{Absent: "absent", Loading: "loading", Resident: "resident", Evicting: "evicting", Warm: "warm"}[s]
}
