package cpu

import (
	"sync"

	"github.com/triptych-serving/triptych/engine/device"
)

// ledger counts the bytes a device has mapped and refuses what would exceed the limit or is
// not to be had from other processes.
type ledger struct {
	device string
	limit  int64                   // 0 is none
	lease  device.Lease            // nil where no other process uses the device
	refuse func(bytes int64) error // nil refuses nothing; called with mu held, as get is

	mu         sync.Mutex
	used, peak int64
	offloaded  int64
	refused    int64 // calls of take
}

// take counts bytes as used if they are under the limit, the lease gives them and get succeeds; else it gives a
// device.MemoryError and counts nothing.
func (l *ledger) take(bytes int64, get func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	refused := func(err error) error {
		l.refused++
		return &device.MemoryError{Device: l.device, NeededBytes: bytes, AvailableBytes: l.available(), CapBytes: l.limit, Err: err}
	}
	if l.limit > 0 && bytes > l.available() {
		return refused(nil)
	}
	if l.lease != nil {
		if err := l.lease.Reserve(bytes); err != nil {
			return refused(err)
		}
	}
	err := error(nil)
	if l.refuse != nil {
		err = l.refuse(bytes)
	}
	if err == nil {
		err = get()
	}
	if err != nil {
		if l.lease != nil {
			l.lease.Release(bytes)
		}
		return refused(err)
	}
	l.used += bytes
	l.peak = max(l.peak, l.used)
	return nil
}

// available is what is left under the limit, -1 without one. l.mu is held.
func (l *ledger) available() int64 {
	if l.limit == 0 {
		return -1
	}
	return l.limit - l.used
}

// release gives back what take counted.
func (l *ledger) release(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveBack(bytes)
}

// giveBack is release; l.mu is held.
func (l *ledger) giveBack(bytes int64) {
	l.used -= bytes
	if l.lease != nil {
		l.lease.Release(bytes)
	}
}

// offload counts what take counted apart from what is used.
func (l *ledger) offload(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveBack(bytes)
	l.offloaded += bytes
}

// onload is take of what was offloaded; if it is refused, that is counted as before.
func (l *ledger) onload(bytes int64, get func() error) error {
	return l.take(bytes, func() error {
		err := get()
		if err == nil {
			l.offloaded -= bytes
		}
		return err
	})
}

// drop forgets what was offloaded.
func (l *ledger) drop(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offloaded -= bytes
}

func (l *ledger) reading() device.Memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	return device.Memory{UsedBytes: l.used, PeakBytes: l.peak, CapBytes: l.limit, OffloadedBytes: l.offloaded, Refused: l.refused}
}
