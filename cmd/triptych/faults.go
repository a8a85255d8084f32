package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/stage"
)

// faultsEnv is how tests make allocations of runtimes fail, as those of a card do that has less memory than it
// says. Entries are separated by semicolons:
//
//	STAGE alloc N       the Nth allocation of that stage's runtime process fails
//	STAGE alloc N-M     the Nth to the Mth
//	STAGE every N       every Nth
//
// Nothing but a runtime reads it, and it says so in its log.
const faultsEnv = "TRIPTYCH_TEST_FAULTS"

// fault is an entry: the allocations it fails.
type fault struct{ first, last, every uint64 }

func (f fault) hits(n uint64) bool {
	if f.every > 0 {
		return n%f.every == 0
	}
	return f.first <= n && n <= f.last
}

// faults gives what refuses the allocations that faultsEnv names of a stage; nil if it names none.
func faults(kind stage.Kind) (refuse func(bytes int64) error, err error) {
	var all []fault
	for entry := range strings.SplitSeq(os.Getenv(faultsEnv), ";") {
		words := strings.Fields(entry)
		if len(words) == 0 {
			continue
		}
		f, of, ok := parseFault(words)
		if !ok {
			return nil, usageError{fmt.Errorf(`%s: %q: expected entries such as "denoiser alloc 3", "decoder alloc 2-4" or "encoder every 7"`, faultsEnv, entry)}
		}
		if of == kind {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	n := uint64(0) // the device asks one at a time
	return func(bytes int64) error {
		n++
		for _, f := range all {
			if f.hits(n) {
				return fmt.Errorf("allocation %d, of %d bytes, was told to fail", n, bytes)
			}
		}
		return nil
	}, nil
}

func parseFault(words []string) (f fault, kind stage.Kind, ok bool) {
	if len(words) != 3 {
		return f, 0, false
	}
	number := func(text string) uint64 { // 0 is none
		n, _ := strconv.ParseUint(text, 10, 64)
		return n
	}
	kind, ok = stage.ParseKind(words[0])
	switch words[1] {
	case "alloc":
		first, last, span := strings.Cut(words[2], "-")
		if f.first, f.last = number(first), number(last); !span {
			f.last = f.first
		}
		ok = ok && f.first > 0 && f.last >= f.first
	case "every":
		f.every = number(words[2])
		ok = ok && f.every > 0
	default:
		ok = false
	}
	return f, kind, ok
}
