// Package limits measures what this machine can do at most, so that a time can be told as a share of it: the rate of
// multiply-adds, the bandwidth of each level of memory, of a plain copy and of the disk.
//
// The package may import engine/kernel and engine/device/cpu.
package limits

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// Limits are the best rates seen. Bandwidth is 1e9 bytes a second; every byte that is read and every byte that is
// written counts, but for Memcpy, which counts the bytes that are copied once.
type Limits struct {
	Threads int `json:"threads"`
	// FMA is multiply-adds between registers, in GFLOP/s.
	FMA    Rate    `json:"fma_gflops"`
	Levels []Level `json:"memory"`
	// Memcpy is Go's copy of memory far larger than the caches.
	Memcpy Rate `json:"memcpy_gb_s"`
	// Fresh is the same out of a cache into memory that the system has yet to find and clear, as a load's is.
	Fresh Rate `json:"fresh_gb_s"`
	// DiskRead is a sequential read of DiskBytes that were not in the page cache; 0 where that cannot be arranged.
	DiskRead  float64 `json:"disk_read_gb_s"`
	DiskBytes int64   `json:"disk_bytes"`
}

// Rate is for one thread and for all threads together.
type Rate struct {
	One float64 `json:"one_thread"`
	All float64 `json:"all_threads"`
}

// For gives the rate of as many threads: one, or all.
func (r Rate) For(threads int) float64 {
	if threads == 1 {
		return r.One
	}
	return r.All
}

// Raise measures the rate of multiply-adds once more and keeps the better figure: the machine may be quieter, or its
// clock higher, than it was. all is the number of threads that All stands for.
func (r *Rate) Raise(threads, all int) {
	v := FMA(threads)
	if threads == 1 {
		r.One = max(r.One, v)
	}
	if threads == all {
		r.All = max(r.All, v)
	}
}

// Level is a cache, or the memory behind the last one.
type Level struct {
	Name string `json:"name"`
	// Bytes is the size of a cache as one core sees it, 0 for memory.
	Bytes int64 `json:"bytes"`
	Read  Rate  `json:"read_gb_s"`
	Copy  Rate  `json:"copy_gb_s"`
}

// At is the level that a working set of so many bytes lies in.
func (l Limits) At(bytes float64) Level {
	for _, v := range l.Levels {
		if v.Bytes == 0 || bytes <= float64(v.Bytes) {
			return v
		}
	}
	return Level{}
}

// Measure takes some four seconds. The disk is not measured.
func Measure(ctx context.Context, threads int) (Limits, error) {
	l := Limits{Threads: threads, FMA: Rate{One: FMA(1), All: FMA(threads)}}
	caches := cpu.Caches()
	for i, c := range caches {
		l.Levels = append(l.Levels, level(c, threads, i == len(caches)-1))
		if err := ctx.Err(); err != nil {
			return l, err
		}
	}
	last := int64(8 << 20)
	if len(caches) > 0 {
		last = caches[len(caches)-1].Bytes
	}
	behind := max(4*last, 64<<20) // of each thread
	l.Levels = append(l.Levels, Level{Name: "DRAM", Read: read(behind, behind, threads), Copy: copied(behind, behind, threads)})
	l.Memcpy = memcpy(behind, threads)
	var err error
	if l.Fresh, err = fresh(behind, threads); err != nil {
		return l, err
	}
	return l, ctx.Err()
}

// level measures a cache with arrays that fill half of it, the half of a thread's part where threads share it.
func level(c cpu.Cache, threads int, last bool) Level {
	one, all := c.Bytes/2, c.Bytes/2
	if last && c.Shared {
		all /= int64(threads)
	}
	return Level{Name: c.Name, Bytes: c.Bytes, Read: read(one, all, threads), Copy: copied(one, all, threads)}
}

// FMA is the rate of multiply-adds now, in GFLOP/s, of so many threads together.
func FMA(threads int) float64 {
	const rounds = 10_000 // 40 microseconds: assembly delays collections
	return best(threads, func(int) (func(), float64) {
		return func() { kernel.FMAPeak(rounds) }, rounds * kernel.PeakFlops
	}) / 1e9
}

// callElems is how many elements a call reads at most, some 20 microseconds of the slowest memory: assembly delays
// collections.
const callElems = 64 << 10

// read is the bandwidth of reading arrays of so many bytes over and over.
func read(oneBytes, allBytes int64, threads int) Rate {
	rate := func(bytes int64, threads int) float64 {
		return best(threads, func(int) (func(), float64) {
			x := array(bytes)
			times, work := each(len(x), func(from, to int) { kernel.StreamRead(x[from:to]) })
			return work, 4 * float64(times*len(x))
		}) / 1e9
	}
	return Rate{One: rate(oneBytes, 1), All: rate(allBytes, threads)}
}

// copied is the bandwidth of copying within as many bytes, half of them read and half of them written.
func copied(oneBytes, allBytes int64, threads int) Rate {
	rate := func(bytes int64, threads int) float64 {
		return best(threads, func(int) (func(), float64) {
			x, dst := array(bytes/2), array(bytes/2)
			times, work := each(len(x), func(from, to int) { kernel.StreamCopy(dst[from:to], x[from:to]) })
			return work, 8 * float64(times*len(x))
		}) / 1e9
	}
	return Rate{One: rate(oneBytes, 1), All: rate(allBytes, threads)}
}

func memcpy(bytes int64, threads int) Rate {
	rate := func(threads int) float64 {
		return best(threads, func(int) (func(), float64) {
			x, dst := array(bytes/2), array(bytes/2)
			return func() { copy(dst, x) }, 4 * float64(len(x))
		}) / 1e9
	}
	return Rate{One: rate(1), All: rate(threads)}
}

// fresh maps so many bytes at a time: of fewer, the system clears what is still in a cache.
func fresh(bytes int64, threads int) (Rate, error) {
	var failed atomic.Pointer[error]
	rate := func(threads int) float64 {
		return best(threads, func(int) (func(), float64) {
			x := make([]byte, callElems)
			return func() {
				if err := intoFresh(x, int(bytes)); err != nil {
					failed.Store(&err)
				}
			}, float64(bytes)
		}) / 1e9
	}
	r := Rate{One: rate(1), All: rate(threads)}
	if err := failed.Load(); err != nil {
		return Rate{}, fmt.Errorf("limits: fresh memory: %w", *err)
	}
	return r, nil
}

// intoFresh maps memory, fills it with copies of x, and gives it back.
func intoFresh(x []byte, bytes int) error {
	mem, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	cpu.AdviseHuge(mem) // as arenas are
	for at := 0; at < len(mem); at += len(x) {
		copy(mem[at:], x)
	}
	return unix.Munmap(mem)
}

// array is whole blocks of touched memory.
func array(bytes int64) []float32 {
	x := make([]float32, max(1, bytes/4/kernel.StreamBlock)*kernel.StreamBlock)
	for i := range x {
		x[i] = 1
	}
	return x
}

// each is work on n elements in calls that are short enough; few elements are worked on several times, so that the
// clock is not read too often.
func each(n int, part func(from, to int)) (times int, work func()) {
	times = max(1, 4*callElems/n)
	return times, func() {
		for range times {
			for from := 0; from < n; from += callElems {
				part(from, min(n, from+callElems))
			}
		}
	}
}

// The windows of a measurement: as many, each as long. The best one counts, since what else runs on the machine only
// ever takes away.
const (
	windows = 8
	window  = 15 * time.Millisecond
)

// best runs work on threads goroutines at once and returns units per second: the most in a window. start makes what a
// goroutine repeats, and tells the units of one repetition.
func best(threads int, start func(thread int) (work func(), units float64)) float64 {
	runtime.GC() // a collection in a window would be measured with it
	rates := make([][windows]float64, threads)
	var ready, done sync.WaitGroup
	ready.Add(threads)
	begin := make(chan time.Time)
	for i := range threads {
		done.Go(func() {
			work, units := start(i)
			work()
			ready.Done()
			at := <-begin
			for w := range windows {
				end := at.Add(time.Duration(w+1) * window)
				from, n := time.Now(), 0
				for {
					work()
					n++
					if time.Now().After(end) {
						break
					}
				}
				rates[i][w] = units * float64(n) / time.Since(from).Seconds()
			}
		})
	}
	ready.Wait()
	now := time.Now()
	for range threads {
		begin <- now
	}
	done.Wait()
	most := 0.0
	for w := range windows {
		sum := 0.0
		for i := range rates {
			sum += rates[i][w]
		}
		most = max(most, sum)
	}
	return most
}
