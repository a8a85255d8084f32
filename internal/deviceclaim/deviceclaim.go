// Package deviceclaim shares a device's memory between the processes of a host. Each has one record in a directory that
// all of them know: the bytes it has reserved, and the budget it was told. It holds the file's lock (flock) for its
// life, which the kernel gives back however it ends, so that what a dead process had is free at once. Nobody serves the
// ledger: whoever wants bytes takes the directory's lock, adds the records up, and writes its own.
//
// The directory must be on a file system with locks, and every process of the device must see the same one. That can be checked:
// it has an id, which Observe tells.
//
// The package may import stage, engine/device and golang.org/x/sys; cmd alone imports it.
package deviceclaim

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/stage"
)

// wantLife is how long an orchestrator's wish counts after it was told last; it tells every second.
const wantLife = 5 * time.Second

// maxWants is how many wishes Observe tells, the oldest.
const maxWants = 16

// Claim is this process's part in a device. Safe for concurrent use.
type Claim struct {
	dir string
	now func() time.Time

	mu    sync.Mutex // before the directory's lock
	file  *os.File   // the record, locked while it is open; nil once closed
	own   record
	share stage.DeviceShare // seen last
}

// Open makes this process known to the others on a device, with no bytes yet. root is for the devices of one host and must be
// there: a missing one would be a second budget. Each device has a directory there, of this user alone.
// All together have the largest budget that a living process states, and those of one orchestrator at most the smallest that
// they state; 0 states none. The error is a DirectoryError for one that is missing, and for a device's where others could write.
func Open(root, device string, budget int64) (*Claim, error) {
	if device == "" || strings.ContainsRune(device, filepath.Separator) || strings.HasPrefix(device, ".") {
		return nil, fmt.Errorf("device claim: device %q cannot name a directory", device)
	}
	l := &Claim{now: time.Now, own: record{budget: budget}}
	l.dir = filepath.Join(root, device)
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return nil, &DirectoryError{root, "an existing directory", "none"}
	}
	if err := MakeOwn(l.dir); err != nil {
		return nil, err
	}
	unlock, err := lock(l.dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := identity(l.dir); err != nil {
		return nil, err
	}
	if l.file, err = create(l.dir, l.own); err != nil {
		return nil, err
	}
	return l, nil
}

// Reserve counts bytes as this process's. The error is a device.BusyError if they would exceed a budget, or if
// another orchestrator has waited for them longer; nothing is counted then.
func (l *Claim) Reserve(bytes int64) error {
	return l.change(func(all []record) error {
		t := l.tally(all)
		if left := t.left(l.own.bytes); bytes > left {
			return &device.BusyError{NeededBytes: bytes, AvailableBytes: max(0, left), OthersBytes: t.held, AwaitedBytes: t.older, BudgetBytes: t.budget}
		}
		l.own.bytes += bytes
		l.own.want.bytes = max(0, l.own.want.bytes-bytes)
		return nil
	})
}

// Release gives bytes back that Reserve counted. If the directory cannot be changed now, they count until the next change.
func (l *Claim) Release(bytes int64) {
	l.mu.Lock()
	l.own.bytes -= bytes
	l.mu.Unlock()
	_ = l.change(func([]record) error { return nil }) // the next Reserve tells what is wrong
}

// Observe tells on behalf of which orchestrator this process works and what that one lacks, unless the id is empty,
// and gives what others have and want of its budget: everybody who works for another, or for nobody known. If the directory cannot be read now, it
// is what was seen last.
func (l *Claim) Observe(orchestrator string, w stage.Want) stage.DeviceShare {
	_ = l.change(func(all []record) error { // the next Reserve tells what is wrong
		now := l.now()
		if orchestrator != "" {
			l.own.owner, l.own.want = ownerOf(orchestrator), want{}
			if !w.Since.IsZero() && w.Since.UnixNano() > 0 {
				l.own.want = want{w.Bytes, w.Since.UnixNano(), now.Add(wantLife).UnixNano()}
			}
		}
		t := l.tally(all)
		id, err := identity(l.dir)
		if err != nil {
			return err
		}
		share := stage.DeviceShare{BudgetBytes: t.budget, Claim: id}
		for _, r := range all {
			if !l.foreign(r) {
				continue
			}
			share.ForeignBytes = add(share.ForeignBytes, r.bytes)
			if w, ok := r.want.at(now); ok && w.Bytes > 0 {
				share.ForeignWants = append(share.ForeignWants, w)
			}
		}
		slices.SortFunc(share.ForeignWants, func(a, b stage.Want) int { return a.Since.Compare(b.Since) })
		share.ForeignWants = share.ForeignWants[:min(len(share.ForeignWants), maxWants)]
		t.spare(&share)
		l.share = share
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.share
}

// Close takes the record away. Idempotent; the process's end does the same.
func (l *Claim) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	if unlock, err := lock(l.dir); err == nil {
		defer unlock()
		_ = os.Remove(file.Name()) // else the next one who looks does
	}
	return file.Close()
}

// tally is what the records say together.
type tally struct {
	budget, most int64 // the smallest stated by this orchestrator's processes, the largest by anybody; 0 if there is none
	ours, held   int64 // by the others of this orchestrator, by all others with them
	older        int64 // wanted by other orchestrators for longer than by this one
}

// left is what a process with so many bytes can have.
func (t tally) left(own int64) int64 {
	left := int64(math.MaxInt64)
	if t.budget > 0 {
		left = t.budget - add(own, t.ours)
	}
	if t.most > 0 {
		left = min(left, t.most-add(add(own, t.held), t.older))
	}
	return left
}

// spare takes from what others have and want that for which this orchestrator's budget is not needed.
func (t tally) spare(s *stage.DeviceShare) {
	if t.budget == 0 {
		return
	}
	spare := t.most - t.budget
	take := func(from *int64) {
		n := min(*from, spare)
		*from, spare = *from-n, spare-n
	}
	take(&s.ForeignBytes)
	for i := range s.ForeignWants {
		take(&s.ForeignWants[i].Bytes)
	}
	s.ForeignWants = slices.DeleteFunc(s.ForeignWants, func(w stage.Want) bool { return w.Bytes == 0 })
}

func (l *Claim) tally(all []record) tally {
	t, now := tally{budget: l.own.budget, most: l.own.budget}, l.now()
	since, waits := l.own.want.at(now)
	for _, r := range all {
		t.held = add(t.held, r.bytes)
		t.most = max(t.most, r.budget)
		if !l.foreign(r) {
			t.ours = add(t.ours, r.bytes)
			if r.budget > 0 && (t.budget == 0 || r.budget < t.budget) {
				t.budget = r.budget
			}
		}
		if w, ok := r.want.at(now); ok && !l.foreign(r) && (!waits || w.Since.Before(since.Since)) {
			since, waits = w, true
		}
	}
	for _, r := range all {
		w, ok := r.want.at(now)
		if !ok || !l.foreign(r) {
			continue
		}
		if order := w.Since.Compare(since.Since); !waits || order < 0 || order == 0 && bytes.Compare(r.owner[:], l.own.owner[:]) < 0 {
			t.older = add(t.older, w.Bytes)
		}
	}
	return t
}

// foreign tells whether a process works for another orchestrator.
func (l *Claim) foreign(r record) bool { return r.owner == owner{} || r.owner != l.own.owner }

// change gives f the records of the others, and makes known what it did to this one's.
func (l *Claim) change(f func(all []record) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return os.ErrClosed
	}
	unlock, err := lock(l.dir)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := others(l.dir, l.file)
	if err != nil {
		return err
	}
	before := l.own
	if err = f(all); err == nil {
		err = l.write()
	}
	if err != nil {
		l.own = before
	}
	return err
}

// write makes the record known; it makes a new file if somebody has removed the other.
func (l *Claim) write() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(l.file.Fd()), &st); err != nil {
		return fmt.Errorf("device claim: %w", err)
	}
	if st.Nlink == 0 {
		file, err := create(l.dir, l.own)
		if err != nil {
			return err
		}
		_ = l.file.Close() // nothing is left of it
		l.file = file
		return nil
	}
	if _, err := l.file.WriteAt(l.own.encode(), 0); err != nil {
		return fmt.Errorf("device claim: %w", err)
	}
	return nil
}
