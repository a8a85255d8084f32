// Package devices opens the devices that a --device flag can name. All there are stand in one table; one that this build
// does not have is a line there that says what it would take.
//
// The package may import engine/device and the devices in folders below it.
package devices

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
)

// MaxThreads is the most that Options may ask for.
const MaxThreads = cpu.MaxThreads

// Options is what a device is opened or planned with. A device ignores what is not its own.
type Options struct {
	Threads        int          // that compute on the host; 0 is runtime.GOMAXPROCS(0)
	MemoryCapBytes int64        // most bytes of weights, scratch and overhead at once; 0 is no cap
	Claim          device.Claim // asked before memory is taken; nil where no other process uses the device
	// Refuse, which is for tests, is asked before memory is taken; nil refuses nothing.
	Refuse func(bytes int64) error
}

// kind is a sort of devices, which are numbered from 0.
type kind struct {
	name string
	plan func(index int, o Options) (device.Planner, error)
	open func(index int, o Options) (device.Device, error)
}

func table() []kind {
	return []kind{
		{"cpu", planCPU, openCPU},
		absent("cuda", "a build with engine/device/cuda, which does not exist yet, and NVIDIA's driver"),
	}
}

// Open opens a device by its name, such as "cpu:0". The caller must Close it. The error is a device.FieldError for a name
// that is in no table or a setting out of range, a device.UnsupportedError for a device that this build does not have, or
// the device's own.
func Open(name string, o Options) (device.Device, error) {
	k, index, err := find(name)
	if err != nil {
		return nil, err
	}
	return k.open(index, o)
}

// Plan gives a device that is only planned for: nothing is opened, and nothing can be loaded on it. The error is as Open's.
func Plan(name string, o Options) (device.Planned, error) {
	k, index, err := find(name)
	if err != nil {
		return device.Planned{}, err
	}
	p, err := k.plan(index, o)
	return device.Planned{Planner: p, CapBytes: o.MemoryCapBytes}, err
}

// Name is a device's name in full: "cpu" is "cpu:0". The error is a device.FieldError.
func Name(name string) (string, error) {
	k, index, err := find(name)
	return address(k.name, index), err
}

func find(name string) (kind, int, error) {
	of, number, numbered := strings.Cut(name, ":")
	var known []string
	for _, k := range table() {
		known = append(known, k.name+":N")
		if k.name != of {
			continue
		}
		if !numbered {
			return k, 0, nil
		}
		if index, err := strconv.ParseUint(number, 10, 31); err == nil && address(of, int(index)) == name {
			return k, int(index), nil
		}
	}
	return kind{}, 0, &device.FieldError{Field: "device", Expected: strings.Join(known, " or ") + ", N from 0, or without N for 0", Got: strconv.Quote(name)}
}

func address(kind string, index int) string { return fmt.Sprintf("%s:%d", kind, index) }

// absent is a kind that this build does not have.
func absent(name, needs string) kind {
	missing := func(index int) error {
		return &device.UnsupportedError{Device: address(name, index), What: "a " + strings.ToUpper(name) + " device", Needs: needs}
	}
	return kind{
		name,
		func(index int, _ Options) (device.Planner, error) { return nil, missing(index) },
		func(index int, _ Options) (device.Device, error) { return nil, missing(index) },
	}
}

func cpuOptions(index int, o Options) cpu.Options {
	return cpu.Options{Index: index, Threads: o.Threads, MemoryCapBytes: o.MemoryCapBytes, Claim: o.Claim, Refuse: o.Refuse}
}

func planCPU(index int, o Options) (device.Planner, error) {
	return cpu.NewPlanner(cpuOptions(index, o))
}

func openCPU(index int, o Options) (device.Device, error) { return cpu.New(cpuOptions(index, o)) }
