package cpu

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/engine/device"
)

// lineBytes is the alignment of everything in an arena: one cache line.
const lineBytes = device.ScratchAlign

// arena is one private anonymous mapping, zeroed, outside the Go heap. Its bytes are in the
// ledger from map to free, those of an offloaded one apart from the device's.
type arena struct {
	ledger *device.Ledger
	mem    []byte

	mu    sync.Mutex // held where the state changes; the ledger's comes behind it
	state atomic.Int32
}

// The states of an arena. In all but the first its memory must not be used.
const (
	onDevice int32 = iota
	offloaded
	freed
)

// mappedBytes is what newArena takes for a size: whole pages.
func mappedBytes(bytes int64) int64 {
	page := int64(os.Getpagesize())
	return (bytes + page - 1) / page * page
}

// newArena maps at least bytes. The error is a device.MemoryError.
func newArena(l *device.Ledger, bytes int64) (*arena, error) {
	bytes = mappedBytes(bytes)
	a := &arena{ledger: l}
	if bytes == 0 {
		return a, nil
	}
	err := l.Take(bytes, func() (err error) {
		a.mem, err = unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			AdviseHuge(a.mem)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (a *arena) bytes() int64 { return int64(len(a.mem)) }

// usable reports why what an arena is for must not use it.
func (a *arena) usable(what string) error {
	switch a.state.Load() {
	case offloaded:
		return fmt.Errorf("%s %w", what, device.ErrOffloaded)
	case freed:
		return fmt.Errorf("%s %w", what, device.ErrFreed)
	}
	return nil
}

// offload gives the bytes back to the ledger and leaves the memory as it is, protected: a use is a fault. Idempotent.
func (a *arena) offload() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state.Load() != onDevice {
		return
	}
	a.state.Store(offloaded)
	if len(a.mem) > 0 {
		_ = unix.Mprotect(a.mem, unix.PROT_NONE) // a guard alone: the system may have no mapping left to split off
		a.ledger.Offload(a.bytes())
	}
}

// onload takes the bytes again. The error is a device.MemoryError, or wraps device.ErrFreed. Idempotent.
func (a *arena) onload() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch a.state.Load() {
	case onDevice:
		return nil
	case freed:
		return device.ErrFreed
	}
	if len(a.mem) > 0 {
		if err := a.ledger.Onload(a.bytes(), func() error { return unix.Mprotect(a.mem, unix.PROT_READ|unix.PROT_WRITE) }); err != nil {
			return err
		}
	}
	a.state.Store(onDevice)
	return nil
}

// free unmaps at once, and reports whether it did that now. Slices of the arena must no longer be used.
func (a *arena) free() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.state.Swap(freed)
	if before == freed {
		return false
	}
	if len(a.mem) == 0 {
		return true
	}
	if err := unix.Munmap(a.mem); err != nil { // only for memory that is not ours
		panic(fmt.Sprintf("cpu: munmap of %d bytes: %v", len(a.mem), err))
	}
	if before == offloaded {
		a.ledger.Drop(a.bytes())
	} else {
		a.ledger.Release(a.bytes())
	}
	return true
}

// carver hands out pieces of memory one after the other, each on a cache line. Without memory it
// only counts, so that a measure and an allocation cannot disagree.
type carver struct {
	mem  []byte
	used int64
}

// take carves n elements; nil while counting. T may hold pointers, but only to mapped memory.
func take[T any](c *carver, n int) []T {
	var zero T
	at := c.used
	c.used += alignLine(int64(n) * int64(unsafe.Sizeof(zero)))
	if c.mem == nil {
		return nil
	}
	return view[T](c.mem[at:], n)
}

// view gives the first n elements of memory, which must be aligned for them: every piece of an arena is.
// It is sound because the length is checked against mem, and the mapping does not move; the garbage
// collector looks neither at it nor for it, so that free alone ends its life.
func view[T any](mem []byte, n int) []T {
	var zero T
	mem = mem[:n*int(unsafe.Sizeof(zero))]
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mem))), n)
}

func alignLine(bytes int64) int64 { return (bytes + lineBytes - 1) / lineBytes * lineBytes }
