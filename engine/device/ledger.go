package device

import "sync"

// Ledger counts the bytes that a device has given out, and refuses what would exceed its cap or is not to be had from
// other processes. Fields are set before its use. Safe for concurrent use.
type Ledger struct {
	Device        string
	CapBytes      int64                   // 0 is none
	OverheadBytes int64                   // of the device, under the cap
	Claim         Claim                   // nil where no other process uses the device
	Refuse        func(bytes int64) error // nil refuses nothing; one call at a time, as of what Take is given

	mu         sync.Mutex
	used, peak int64
	offloaded  int64
	refused    int64 // calls of Take
	closed     bool
}

// Open takes the overhead. The error is a MemoryError.
func (l *Ledger) Open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.CapBytes > 0 && l.available() < 0 {
		return &MemoryError{Device: l.Device, NeededBytes: l.OverheadBytes, AvailableBytes: l.CapBytes, CapBytes: l.CapBytes}
	}
	if l.Claim == nil {
		return nil
	}
	if err := l.Claim.Reserve(l.OverheadBytes); err != nil {
		return &MemoryError{Device: l.Device, NeededBytes: l.OverheadBytes, AvailableBytes: l.available(), CapBytes: l.CapBytes, Err: err}
	}
	return nil
}

// Close gives the overhead back, once.
func (l *Ledger) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Claim != nil && !l.closed {
		l.Claim.Release(l.OverheadBytes)
	}
	l.closed = true
}

// Take counts bytes as used if they are under the cap, the claim gives them and get succeeds; else it gives a
// MemoryError and counts nothing.
func (l *Ledger) Take(bytes int64, get func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	refused := func(err error) error {
		l.refused++
		return &MemoryError{Device: l.Device, NeededBytes: bytes, AvailableBytes: l.available(), CapBytes: l.CapBytes, Err: err}
	}
	if l.CapBytes > 0 && bytes > l.available() {
		return refused(nil)
	}
	if l.Claim != nil {
		if err := l.Claim.Reserve(bytes); err != nil {
			return refused(err)
		}
	}
	err := error(nil)
	if l.Refuse != nil {
		err = l.Refuse(bytes)
	}
	if err == nil {
		err = get()
	}
	if err != nil {
		if l.Claim != nil {
			l.Claim.Release(bytes)
		}
		return refused(err)
	}
	l.used += bytes
	l.peak = max(l.peak, l.used)
	return nil
}

// available is what is left under the cap, -1 without one. l.mu is held.
func (l *Ledger) available() int64 {
	if l.CapBytes == 0 {
		return -1
	}
	return l.CapBytes - l.OverheadBytes - l.used
}

// Release gives back what Take counted.
func (l *Ledger) Release(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveBack(bytes)
}

// giveBack is Release; l.mu is held.
func (l *Ledger) giveBack(bytes int64) {
	l.used -= bytes
	if l.Claim != nil {
		l.Claim.Release(bytes)
	}
}

// Offload counts what Take counted apart from what is used.
func (l *Ledger) Offload(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveBack(bytes)
	l.offloaded += bytes
}

// Onload is Take of what was offloaded; if it is refused, that is counted as before.
func (l *Ledger) Onload(bytes int64, get func() error) error {
	return l.Take(bytes, func() error {
		err := get()
		if err == nil {
			l.offloaded -= bytes
		}
		return err
	})
}

// Drop forgets what was offloaded.
func (l *Ledger) Drop(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offloaded -= bytes
}

// Memory is what is counted now.
func (l *Ledger) Memory() Memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Memory{UsedBytes: l.used, PeakBytes: l.peak, CapBytes: l.CapBytes, OffloadedBytes: l.offloaded, Refused: l.refused}
}
