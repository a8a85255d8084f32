package family

import (
	"context"
	"strconv"
	"sync"

	"github.com/triptych-serving/triptych/engine/device"
)

// Store keeps arrays of one size by key in memory of the device, as long as a component's weights are there: what it takes
// counts as part of them. When it is full, the array not used for longest makes room. Safe for concurrent use.
type Store struct {
	tape  *device.Tape // an input and an output for each slot, and no ops: nothing but memory
	bytes int64        // of an open store

	mu    sync.Mutex
	run   device.Run // nil while closed
	slots []slot     // used last comes last
}

// rememberedPrompts is how many prompts' states a resident text encoder keeps: the usual negative prompt, and the
// prompts that are tried with one seed after another. Of Stable Diffusion 1.5 they are 1.9 MB.
const rememberedPrompts = 8

// Prompts is room for the states of prompts, in an array of a shape each.
func Prompts(shape ...int) Room { return Room{N: rememberedPrompts, Shape: shape} }

// Room is for n arrays of a shape.
type Room struct {
	N     int
	Shape []int
}

// slot is one array's place.
type slot struct {
	key  string
	name string // on the tape
}

// NewStore plans a store beside weights of a manifest, closed. No room is no store.
func NewStore(d device.RunPlanner, m *device.Manifest, r Room) (*Store, error) {
	if r.N == 0 {
		return nil, nil
	}
	s := &Store{tape: device.NewTape(m)}
	for i := range r.N {
		name := strconv.Itoa(i)
		s.tape.Output(name, s.tape.Input(name, r.Shape...))
	}
	var err error
	s.bytes, err = d.ScratchBytes(s.tape, device.RunOptions{})
	return s, err
}

// Bytes is what an open store takes; none takes nothing.
func (s *Store) Bytes() int64 {
	if s == nil {
		return 0
	}
	return s.bytes
}

// Open takes the memory; w are the weights it goes with. The error is that of device.NewRun.
func (s *Store) Open(d device.Device, w device.Weights) error {
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

// Offload takes the memory off the device; what is remembered stays. The error is that of device.Allocation.
func (s *Store) Offload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run.Offload(ctx)
}

// Onload takes the memory again. The error is that of device.Allocation.
func (s *Store) Onload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run.Onload(ctx)
}

// Close gives the memory back and forgets everything.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run.Free()
	s.run, s.slots = nil, nil
}

// Get copies the array of a key, which is not empty, into v and reports whether it is there.
func (s *Store) Get(key string, v []float32) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if s.slots[i].key == key {
			return true, s.run.Read(s.use(i, key), v)
		}
	}
	return false, nil
}

// Put keeps a copy of v under a key, which is not empty.
func (s *Store) Put(key string, v []float32) error {
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
func (s *Store) use(i int, key string) (name string) {
	used := slot{key: key, name: s.slots[i].name}
	copy(s.slots[i:], s.slots[i+1:])
	s.slots[len(s.slots)-1] = used
	return used.name
}
