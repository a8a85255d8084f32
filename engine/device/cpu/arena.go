package cpu

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/engine/device"
)

// lineBytes is the alignment of everything in an arena: one cache line.
const lineBytes = device.ScratchAlign

// arena is one private anonymous mapping, zeroed, outside the Go heap. Its bytes are in the
// ledger from map to free.
type arena struct {
	ledger *ledger
	mem    []byte
	once   sync.Once
}

// mappedBytes is what newArena takes for a size: whole pages.
func mappedBytes(bytes int64) int64 {
	page := int64(os.Getpagesize())
	return (bytes + page - 1) / page * page
}

// newArena maps at least bytes. The error is a device.MemoryError.
func newArena(l *ledger, bytes int64) (*arena, error) {
	bytes = mappedBytes(bytes)
	a := &arena{ledger: l}
	if bytes == 0 {
		return a, nil
	}
	err := l.take(bytes, func() (err error) {
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

// free unmaps at once. Idempotent; slices of the arena must no longer be used.
func (a *arena) free() {
	a.once.Do(func() {
		if len(a.mem) == 0 {
			return
		}
		if err := unix.Munmap(a.mem); err != nil { // only for memory that is not ours
			panic(fmt.Sprintf("cpu: munmap of %d bytes: %v", len(a.mem), err))
		}
		a.ledger.release(int64(len(a.mem)))
	})
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
