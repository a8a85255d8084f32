package device

import "sort"

// ScratchAlign is the alignment of every planned array: one cache line.
const ScratchAlign = 64

// ScratchPlan places every array of a tape in one block of memory. Arrays whose lifetimes do
// not overlap share bytes, as do the operand and the result of an op that can work in place.
type ScratchPlan struct {
	Offsets []int64 // by array ID-1
	Bytes   int64
}

// PlanScratch assigns offsets by liveness: largest arrays first, each at the lowest offset free
// over its whole life (greedy by size, Pisarchyk and Lee 2020, arXiv 2001.03288). Inputs live
// from the start and outputs to the end, and inputs also survive for the next execution, as does what the
// prologue computes for later ops.
func PlanScratch(t *Tape) (ScratchPlan, error) {
	if t.err != nil {
		return ScratchPlan{}, t.err
	}
	type life struct {
		id, first, last int
		bytes           int64
	}
	lives := make([]life, len(t.arrays))
	for i, s := range t.arrays {
		n, _ := s.Elems()
		lives[i] = life{id: i, first: -1, bytes: (4*int64(n) + ScratchAlign - 1) / ScratchAlign * ScratchAlign}
	}
	for step, op := range t.ops {
		in, out := op.operands()
		for _, a := range in {
			if !a.Present() {
				continue
			}
			lives[a.ID-1].last = step
			if step >= t.prologue && t.fixed[a.ID-1] {
				lives[a.ID-1].last = len(t.ops)
			}
		}
		lives[out.ID-1].first, lives[out.ID-1].last = step, step
	}
	for _, in := range t.inputs {
		lives[in.Array.ID-1].first, lives[in.Array.ID-1].last = 0, len(t.ops)
	}
	for _, out := range t.outputs {
		lives[out.Array.ID-1].last = len(t.ops)
	}
	owner := make([]int, len(lives)) // whose bytes an array has, by ID-1
	for i := range owner {
		owner[i] = i
	}
	for step, op := range t.ops {
		_, out := op.operands()
		in, ok := inPlace(op)
		if !ok {
			continue
		}
		from, to := &lives[owner[in.ID-1]], &lives[out.ID-1]
		if from.last == step && from.first < step { // nobody reads the operand behind the op
			owner[out.ID-1] = from.id
			from.last, to.bytes = to.last, 0
		}
	}
	sort.SliceStable(lives, func(i, j int) bool { return lives[i].bytes > lives[j].bytes })

	plan := ScratchPlan{Offsets: make([]int64, len(lives))}
	type placed struct {
		life
		offset int64
	}
	var done []placed // by offset
	for _, l := range lives {
		var at int64
		for _, p := range done {
			if p.last < l.first || l.last < p.first {
				continue
			}
			if p.offset >= at+l.bytes {
				break
			}
			at = max(at, p.offset+p.bytes)
		}
		plan.Offsets[l.id] = at
		plan.Bytes = max(plan.Bytes, at+l.bytes)
		i := sort.Search(len(done), func(i int) bool { return done[i].offset >= at })
		done = append(done, placed{})
		copy(done[i+1:], done[i:])
		done[i] = placed{l, at}
	}
	for i, from := range owner {
		plan.Offsets[i] = plan.Offsets[from]
	}
	return plan, nil
}
