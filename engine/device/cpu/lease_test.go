package cpu

import (
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
)

// lender is a lease of so many bytes.
type lender struct{ left, taken int64 }

func (l *lender) Reserve(bytes int64) error {
	if bytes > l.left {
		return &device.BusyError{NeededBytes: bytes, AvailableBytes: l.left}
	}
	l.left, l.taken = l.left-bytes, l.taken+bytes
	return nil
}

func (l *lender) Release(bytes int64) { l.left, l.taken = l.left+bytes, l.taken-bytes }

// TestLease: memory is mapped only when other processes leave it, and what is not mapped is not kept from them.
func TestLease(t *testing.T) {
	page := mappedBytes(1)
	lease := &lender{left: 3 * page}
	l := &device.Ledger{Device: "cpu:0", CapBytes: 5 * page, Lease: lease}
	a, err := newArena(l, 2*page)
	if err != nil || lease.taken != 2*page {
		t.Fatalf("%d bytes are taken of the lease: %v", lease.taken, err)
	}
	_, err = newArena(l, 2*page)
	var busy *device.BusyError
	if !errors.Is(err, device.ErrOutOfMemory) || !errors.As(err, &busy) || busy.AvailableBytes != page {
		t.Errorf("beyond the lease: %v", err)
	}
	if _, err = newArena(l, 4*page); !errors.Is(err, device.ErrOutOfMemory) || errors.As(err, &busy) {
		t.Errorf("beyond the cap: %v", err)
	}
	if err := l.Take(page, func() error { return errors.New("no memory") }); !errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("what cannot be mapped: %v", err)
	}
	if got := l.Memory(); got.UsedBytes != 2*page || lease.taken != 2*page {
		t.Errorf("%d bytes are used, %d taken of the lease", got.UsedBytes, lease.taken)
	}
	a.offload()
	if got := l.Memory(); lease.taken != 0 || got.UsedBytes != 0 || got.OffloadedBytes != 2*page {
		t.Errorf("offloaded: %d bytes are taken of the lease, %+v", lease.taken, got)
	}
	lease.left = page // others took some
	err = a.onload()
	if !errors.Is(err, device.ErrOutOfMemory) || !errors.As(err, &busy) || busy.AvailableBytes != page || lease.taken != 0 {
		t.Errorf("onload beyond the lease: %v, %d bytes are taken of it", err, lease.taken)
	}
	lease.left = 2 * page
	if err := a.onload(); err != nil || lease.taken != 2*page {
		t.Errorf("onload: %v, %d bytes are taken of the lease", err, lease.taken)
	}
	a.free()
	if lease.taken != 0 {
		t.Errorf("%d bytes are still taken of the lease", lease.taken)
	}
}
