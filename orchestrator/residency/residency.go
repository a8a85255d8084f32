// Package residency decides who is in device memory.
//
// The decisions are made by a ledger without goroutines, clock or I/O: an input goes in, and what is
// to be done (effects) and why (events) come out. The Keeper around it owns the ledger with one
// goroutine, runs the loads and evictions, and answers those who ask for a stage.
//
// The law: a request's weights and scratch are reserved before anything loads, and what is reserved
// on a device never grows past its budget. Evicted bytes count until they are really back.
//
// The package may import stage and the standard library.
package residency

import (
	"fmt"

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
	BudgetBytes int64 // 0 is no limit; when stages disagree, the smallest limit counts
}

// Key names the device in events: host/device.
func (d Device) Key() string { return d.Host + "/" + d.Name }

// Need is a kind of stage with a model resident, and the bytes it takes.
type Need struct {
	Kind      stage.Kind
	Model     string
	Footprint stage.Footprint
	// Identity is that of the weights the caller has worked with: services that are known to have others are not asked while there
	// are any else. Empty is any.
	Identity string
}

// String names the need in reasons.
func (n Need) String() string { return fmt.Sprintf("%v %s", n.Kind, n.Model) }

func (n Need) bytes() int64 { return n.Footprint.WeightsBytes + n.Footprint.ScratchBytes }

// streaming says in words that the need keeps part of the weights, empty if it keeps all.
func (n Need) streaming(d *device) string {
	f := n.Footprint
	if f.WeightsBytes >= f.WholeBytes {
		return ""
	}
	return fmt.Sprintf("; of its %s bytes %s are kept and the others streamed: all, with %s of scratch, exceed the budget of %s",
		count(f.WholeBytes), count(f.WeightsBytes), count(f.ScratchBytes), count(d.BudgetBytes))
}

// State is what is known about a component: a model's part in one stage.
type State uint8

// The states. All but Absent and Warm count on the device; what is Warm is kept, packed, in the host's memory.
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
