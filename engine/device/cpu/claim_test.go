package cpu

import (
	"errors"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
)

// lender is a claim of so many bytes.
type lender struct{ left, taken int64 }

func (l *lender) Reserve(bytes int64) error {
	if bytes > l.left {
		return &device.BusyError{NeededBytes: bytes, AvailableBytes: l.left}
	}
	l.left, l.taken = l.left-bytes, l.taken+bytes
	return nil
}

func (l *lender) Release(bytes int64) { l.left, l.taken = l.left+bytes, l.taken-bytes }

// TestClaim: memory is mapped only when other processes leave it, and what is not mapped is not kept from them.
func TestClaim(t *testing.T) {
	page := mappedBytes(1)
	claim := &lender{left: 3 * page}
	l := &device.Ledger{Device: "cpu:0", CapBytes: 5 * page, Claim: claim}
	a, err := newArena(l, 2*page)
	if err != nil || claim.taken != 2*page {
		t.Fatalf("%d bytes are taken of the claim: %v", claim.taken, err)
	}
	_, err = newArena(l, 2*page)
	var busy *device.BusyError
	if !errors.Is(err, device.ErrOutOfMemory) || !errors.As(err, &busy) || busy.AvailableBytes != page {
		t.Errorf("beyond the claim: %v", err)
	}
	if _, err = newArena(l, 4*page); !errors.Is(err, device.ErrOutOfMemory) || errors.As(err, &busy) {
		t.Errorf("beyond the cap: %v", err)
	}
	if err := l.Take(page, func() error { return errors.New("no memory") }); !errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("what cannot be mapped: %v", err)
	}
	if got := l.Memory(); got.UsedBytes != 2*page || claim.taken != 2*page {
		t.Errorf("%d bytes are used, %d taken of the claim", got.UsedBytes, claim.taken)
	}
	a.offload()
	if got := l.Memory(); claim.taken != 0 || got.UsedBytes != 0 || got.OffloadedBytes != 2*page {
		t.Errorf("offloaded: %d bytes are taken of the claim, %+v", claim.taken, got)
	}
	claim.left = page // others took some
	err = a.onload()
	if !errors.Is(err, device.ErrOutOfMemory) || !errors.As(err, &busy) || busy.AvailableBytes != page || claim.taken != 0 {
		t.Errorf("onload beyond the claim: %v, %d bytes are taken of it", err, claim.taken)
	}
	claim.left = 2 * page
	if err := a.onload(); err != nil || claim.taken != 2*page {
		t.Errorf("onload: %v, %d bytes are taken of the claim", err, claim.taken)
	}
	a.free()
	if claim.taken != 0 {
		t.Errorf("%d bytes are still taken of the claim", claim.taken)
	}
}
