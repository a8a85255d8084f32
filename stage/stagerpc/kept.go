package stagerpc

import (
	"slices"
	"sync"
)

// kept are the values that a server got last, by their SHA-256: conditioning is sent for a job, not for each of its images.
// What is kept is read by any number of calls, and written by none. mu is a leaf.
type kept struct {
	mu    sync.Mutex
	bytes int
	items []keptValue // the one that was used last is last
}

type keptValue struct {
	sum  string
	data []byte
}

// fill puts in what a receiver need not get.
func (k *kept) fill(r *Receiver) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, sum := range r.sums {
		if at := k.find(sum); at >= 0 {
			v := k.items[at]
			k.items = append(slices.Delete(k.items, at, at+1), v)
			r.Have(i, v.data)
		}
	}
}

// find is the place of a value, -1 if it is not kept. k.mu is held.
func (k *kept) find(sum []byte) int {
	return slices.IndexFunc(k.items, func(v keptValue) bool { return len(sum) > 0 && v.sum == string(sum) })
}

// keep keeps what a receiver got and has found to be what its hash says.
func (k *kept) keep(r *Receiver) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, sum := range r.sums {
		data := *bytesOf(&r.values[i])
		if len(sum) == 0 || k.find(sum) >= 0 {
			continue
		}
		k.items, k.bytes = append(k.items, keptValue{string(sum), data}), k.bytes+len(data)
		for k.bytes > MaxKeptBytes || len(k.items) > MaxKept {
			k.bytes -= len(k.items[0].data)
			k.items = slices.Delete(k.items, 0, 1)
		}
	}
}
