package stageengine

import (
	"context"
	"strconv"
	"sync"

	"github.com/triptych-serving/triptych/engine/device"
)

// store keeps arrays of one size by key in memory of the device, as long as a model's weights are there.
// When it is full, the array not used for longest makes room. Safe for concurrent use.
type store struct {
	tape  *device.Tape // an input and an output for each slot, and no ops: nothing but memory
	bytes int64        // of an open store

	mu    sync.Mutex
	run   device.Run // nil while closed
	slots []slot     // used last comes last
}

// slot is one array's place.
type slot struct {
	key  string
	name string // on the tape
}

// newStore plans room for n arrays of a shape, closed.
func newStore(d device.Device, m *device.Manifest, n int, shape ...int) (*store, error) {
	s := &store{tape: device.NewTape(m)}
	for i := range n {
		name := strconv.Itoa(i)
		s.tape.Output(name, s.tape.Input(name, shape...))
	}
	var err error
	s.bytes, err = d.ScratchBytes(s.tape, device.RunOptions{})
	return s, err
}

// open takes the memory; w are the weights it goes with. The error is that of device.NewRun.
func (s *store) open(d device.Device, w device.Weights) error {
	run, err := d.NewRun(s.tape, w, device.RunOptions{})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run, s.slots = run, nil
	for _, in := range s.tape.Inputs() {
		s.slots = append(s.slots, slot{name: in.Name})
	}
	return nil
}

// offload takes the memory off the device; what is remembered stays. The error is that of device.Allocation.
func (s *store) offload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run.Offload(ctx)
}

// onload takes the memory again. The error is that of device.Allocation.
func (s *store) onload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run.Onload(ctx)
}

// close gives the memory back and forgets everything.
func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run.Free()
	s.run, s.slots = nil, nil
}

// get copies the array of a key, which is not empty, into v and reports whether it is there.
func (s *store) get(key string, v []float32) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if s.slots[i].key == key {
			return true, s.run.Read(s.use(i, key), v)
		}
	}
	return false, nil
}

// put keeps a copy of v under a key, which is not empty.
func (s *store) put(key string, v []float32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if s.slots[i].key == key { // of a request that ran at the same time
			s.use(i, key)
			return nil
		}
	}
	return s.run.Write(s.use(0, key), v)
}

// use makes slot i the one used last, for key, and tells its name.
func (s *store) use(i int, key string) (name string) {
	used := slot{key: key, name: s.slots[i].name}
	copy(s.slots[i:], s.slots[i+1:])
	s.slots[len(s.slots)-1] = used
	return used.name
}
