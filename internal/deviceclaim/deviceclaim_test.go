package deviceclaim

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/stage"
)

// join opens a claim as a process of its own would: the locks are of open files, not of processes.
func join(t testing.TB, root string, budget int64) *Claim {
	t.Helper()
	l, err := Open(root, "cpu:0", budget)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func busy(t testing.TB, err error) device.BusyError {
	t.Helper()
	var e *device.BusyError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a BusyError", err)
	}
	return *e
}

func reserve(t testing.TB, l *Claim, bytes int64) {
	t.Helper()
	if err := l.Reserve(bytes); err != nil {
		t.Fatal(err)
	}
}

func TestReserve(t *testing.T) {
	root := t.TempDir()
	a, b := join(t, root, 100), join(t, root, 100)
	reserve(t, a, 60)
	want := device.BusyError{NeededBytes: 41, AvailableBytes: 40, OthersBytes: 60, BudgetBytes: 100}
	if got := busy(t, b.Reserve(41)); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	reserve(t, b, 40)
	if got := busy(t, a.Reserve(1)); got.AvailableBytes != 0 || got.OthersBytes != 40 {
		t.Errorf("got %+v", got)
	}
	a.Release(10)
	reserve(t, b, 10)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	reserve(t, b, 50)
	if err := a.Reserve(1); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Reserve after Close: %v", err)
	}
	if got := busy(t, b.Reserve(math.MaxInt64)); got.AvailableBytes != 0 {
		t.Errorf("got %+v", got)
	}
}

// TestBudget: all together have the largest that somebody states, those of one orchestrator their smallest; 0 is none, and
// devices are apart.
func TestBudget(t *testing.T) {
	root := t.TempDir()
	free := join(t, root, 0)
	reserve(t, free, 1<<40)
	if share := free.Observe("", stage.Want{}); share.BudgetBytes != 0 {
		t.Errorf("budget %d where none is stated", share.BudgetBytes)
	}
	free.Release(1<<40 - 10)
	large, small := join(t, root, 200), join(t, root, 100)
	if got := busy(t, small.Reserve(101)); got.BudgetBytes != 100 || got.AvailableBytes != 100 {
		t.Errorf("got %+v", got)
	}
	reserve(t, small, 90)
	if got := busy(t, large.Reserve(101)); got.BudgetBytes != 200 || got.AvailableBytes != 100 {
		t.Errorf("got %+v", got)
	}
	reserve(t, large, 100)
	if got := busy(t, small.Reserve(1)); got.AvailableBytes != 0 {
		t.Errorf("got %+v", got)
	}
	if share := small.Observe("", stage.Want{}); share.BudgetBytes != 100 || share.ForeignBytes != 10 {
		t.Errorf("others have %d of a budget of %d, want 10 of 100", share.ForeignBytes, share.BudgetBytes)
	}
	if share := large.Observe("", stage.Want{}); share.BudgetBytes != 200 || share.ForeignBytes != 100 {
		t.Errorf("others have %d of a budget of %d, want 100 of 200", share.ForeignBytes, share.BudgetBytes)
	}
	large.Release(100)
	small.Observe("a", stage.Want{})
	third := join(t, root, 200)
	third.Observe("a", stage.Want{})
	if got := busy(t, third.Reserve(11)); got.BudgetBytes != 100 || got.AvailableBytes != 10 {
		t.Errorf("beside a process of its own: %+v", got)
	}
	reserve(t, third, 10)
	other, err := Open(root, "cpu:1", 50)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	reserve(t, other, 50)
}

// TestObserve: what is foreign depends on whom a process works for.
func TestObserve(t *testing.T) {
	root := t.TempDir()
	a1, a2, b, nobody := join(t, root, 100), join(t, root, 100), join(t, root, 100), join(t, root, 100)
	for l, bytes := range map[*Claim]int64{a1: 1, a2: 2, b: 4, nobody: 8} {
		reserve(t, l, bytes)
	}
	since := time.Unix(100, 7)
	a1.Observe("a", stage.Want{Bytes: 50, Since: since})
	a2.Observe("a", stage.Want{Since: since})
	if got, want := a1.Observe("", stage.Want{}), (stage.DeviceShare{BudgetBytes: 100, ForeignBytes: 12, Claim: id(a1)}); !cmp.Equal(got, want) {
		t.Errorf("of a: %s", cmp.Diff(want, got))
	}
	want := stage.DeviceShare{BudgetBytes: 100, ForeignBytes: 11, ForeignWants: []stage.Want{{Bytes: 50, Since: since}}, Claim: id(a1)}
	if got := b.Observe("b", stage.Want{}); !cmp.Equal(got, want) {
		t.Errorf("of b: %s", cmp.Diff(want, got))
	}
}

// TestWants: whoever has waited longest is first to have the bytes, and no longer than it says so.
func TestWants(t *testing.T) {
	root := t.TempDir()
	a, b := join(t, root, 100), join(t, root, 100)
	now := time.Unix(1000, 0)
	a.now, b.now = func() time.Time { return now }, func() time.Time { return now }
	reserve(t, a, 70)
	b.Observe("b", stage.Want{Bytes: 90, Since: now})
	a.Observe("a", stage.Want{})
	a.Release(70)
	if got := busy(t, a.Reserve(11)); got.AvailableBytes != 10 || got.AwaitedBytes != 90 {
		t.Errorf("got %+v", got)
	}
	a.Observe("a", stage.Want{Since: now.Add(time.Second)}) // came later
	if got := busy(t, a.Reserve(11)); got.AwaitedBytes != 90 {
		t.Errorf("got %+v", got)
	}
	a.Observe("a", stage.Want{Since: now.Add(-time.Second)}) // came before
	reserve(t, a, 11)
	a.Release(11)
	a.Observe("a", stage.Want{})
	reserve(t, b, 80) // of what it waits for
	reserve(t, a, 10)
	if got := busy(t, a.Reserve(1)); got.AwaitedBytes != 10 {
		t.Errorf("got %+v", got)
	}
	now = now.Add(wantLife) // and nobody has said it again
	reserve(t, a, 1)
}

// TestDead: a record that nobody holds is no one's, whatever is in it.
func TestDead(t *testing.T) {
	root := t.TempDir()
	l := join(t, root, 100)
	for i, data := range []string{"", "x", string(record{bytes: 99, budget: 1}.encode()), strings.Repeat("\xff", 1<<20)} {
		if err := os.WriteFile(filepath.Join(l.dir, fmt.Sprint(i)+recordExt), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, make := range map[string]func(path string) error{
		"folder.record": func(path string) error { return os.Mkdir(path, 0o700) },
		"link.record":   func(path string) error { return os.Symlink("/dev/zero", path) },
		"notes.txt":     func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
	} {
		if err := make(filepath.Join(l.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	reserve(t, l, 100)
	left, err := filepath.Glob(filepath.Join(l.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range left {
		if path != l.file.Name() {
			names = append(names, filepath.Base(path))
		}
	}
	if want := []string{"folder.record", "id", "link.record", lockName, "notes.txt"}; !cmp.Equal(names, want) {
		t.Errorf("left are %v, want %v", names, want)
	}
}

// TestGarbled: a record that somebody holds and nobody can read may stand for any number of bytes.
func TestGarbled(t *testing.T) {
	root := t.TempDir()
	l := join(t, root, 100)
	good := record{bytes: 5}.encode()
	for name, data := range map[string][]byte{"empty": nil, "short": good[:10], "long": append(good[:len(good):len(good)], 0), "flipped": flip(good, 30), "not ours": flip(good, 0)} {
		path := filepath.Join(l.dir, "other"+recordExt)
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		if held, err := tryLock(file); err != nil || !held {
			t.Fatal(held, err)
		}
		if err := l.Reserve(1); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		reserve(t, l, 1)
	}
}

func flip(data []byte, at int) []byte {
	out := append([]byte{}, data...)
	out[at] ^= 1
	return out
}

// TestCleanedUp: somebody removes files of the directory, or all of it; what is held is known again with the next change.
func TestCleanedUp(t *testing.T) {
	root := t.TempDir()
	a := join(t, root, 100)
	reserve(t, a, 60)
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	a.Observe("a", stage.Want{})
	b := join(t, root, 100)
	if got := busy(t, b.Reserve(41)); got.OthersBytes != 60 {
		t.Errorf("got %+v", got)
	}
}

// TestLockHeld: a process that stops in the middle of a change does not hang the others.
func TestLockHeld(t *testing.T) {
	l := join(t, t.TempDir(), 100)
	reserve(t, l, 10)
	unlock, err := lock(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Reserve(1); !errors.Is(err, ErrLocked) {
		t.Errorf("Reserve: %v", err)
	}
	l.Release(10)
	unlock()
	reserve(t, l, 100)
}

func TestDirectory(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o770); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	var refused *DirectoryError
	for _, path := range []string{open, link} {
		if err := MakeOwn(path); !errors.As(err, &refused) || refused.Path != path {
			t.Errorf("%s as our own: %v", path, err)
		}
		join(t, path, 1) // somebody's volume, with a directory of ours in it
	}
	for _, path := range []string{missing, file} {
		if _, err := Open(path, "cpu:0", 1); !errors.As(err, &refused) || refused.Path != path || refused.Expected != "an existing directory" {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("the missing directory was made")
	}
	device := filepath.Join(open, "cpu:1")
	if err := errors.Join(os.Mkdir(device, 0o700), os.Chmod(device, 0o770)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(open, "cpu:1", 1); !errors.As(err, &refused) || refused.Path != device {
		t.Errorf("a device's directory where others can write: %v", err)
	}
	for _, name := range []string{"", "..", "a/b", ".hidden"} {
		if _, err := Open(t.TempDir(), name, 1); err == nil {
			t.Errorf("device %q was taken for a name", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(record{}.encode())
	f.Add(record{owner: ownerOf("a"), bytes: 1, budget: 2, want: want{3, 4, 5}}.encode())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(data)
		if err != nil {
			return
		}
		if r.bytes < 0 || r.budget < 0 || r.want.bytes < 0 || r.want.since < 0 || r.want.until < 0 {
			t.Errorf("negative: %+v", r)
		}
		if string(r.encode()) != string(data) {
			t.Errorf("%x is read as %+v", data, r)
		}
	})
}
