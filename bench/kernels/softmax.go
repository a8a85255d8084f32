package kernels

import (
	"context"
	"sync"

	"github.com/triptych-serving/triptych/engine/kernel"
)

// softmaxTiles are the tiles of scores, 250 KiB, that a thread goes through: they stay in the second cache.
const softmaxTiles = 20

// softmaxEntries are the softmaxes inside the attentions of the table: rows of as many values as a block has keys.
func softmaxEntries(list []Entry) (out []Entry) {
	seen := map[int]bool{}
	for _, e := range list {
		keys := 0
		if e.Op == attention && e.Main {
			keys = min(e.Keys[1], kernel.MaxKeys)
		}
		if keys == 0 || seen[keys] {
			continue
		}
		seen[keys] = true
		out = append(out, Entry{Shape: Shape{Op: softmax, X: []int{softmaxTiles * kernel.AttentionRows, keys}}, Main: true})
	}
	return out
}

// timeSoftmax times the kernel that turns scores into weights, each thread on tiles of its own; a time is that of one
// thread's tiles on all threads, per thread.
func timeSoftmax(ctx context.Context, o Options, m *measured) error {
	keys := m.row.Shape.X[1]
	tiles := make([][softmaxTiles][kernel.ScoreElems]float32, m.row.Threads)
	for i := range tiles {
		for t := range tiles[i] {
			fill(tiles[i][t][:])
		}
	}
	const times = 16 // so that starting the threads does not count
	err := repeat(ctx, o, []*measured{m}, func(int) error {
		var wait sync.WaitGroup
		for i := range tiles {
			wait.Go(func() {
				for range times {
					for t := range tiles[i] {
						var state kernel.Softmax
						state.Reset()
						kernel.Weigh(&tiles[i][t], keys, 1, &state)
					}
				}
			})
		}
		wait.Wait()
		return nil
	})
	per := 1 / float64(times*len(tiles))
	m.row.Ms.Median, m.row.Ms.Min, m.row.Ms.Max = per*m.row.Ms.Median, per*m.row.Ms.Min, per*m.row.Ms.Max
	return err
}
