package residency

import (
	"fmt"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// BenchmarkStep is a turn (asked and released) behind which so many jobs wait.
func BenchmarkStep(b *testing.B) {
	for _, jobs := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			l := &ledger{}
			var turns []Need
			for _, k := range stage.Kinds() {
				l.step(time.Time{}, joined{holds: holds{stage: StageID(k.String())}, kind: k, device: Device{"h", "d", 110}, names: []string{named(k, "m")}})
				turns = append(turns, single(k, "m", 50, 5))
			}
			finish := func(effects []effect) {
				for len(effects) > 0 {
					next := effects[0]
					effects = effects[1:]
					var more []effect
					switch e := next.(type) {
					case startLoad:
						more, _ = l.step(time.Time{}, loadDone{op: e.op})
					case startEvict:
						more, _ = l.step(time.Time{}, evictDone{op: e.op})
					}
					effects = append(effects, more...)
				}
			}
			var id RequestID
			ask := func(i int) {
				id++
				effects, _ := l.step(time.Time{}, asked{id, JobID(fmt.Sprint(i % jobs)), turns[i%3], false, false})
				finish(effects)
			}
			for i := range jobs {
				l.step(time.Time{}, announced{JobID(fmt.Sprint(i)), turns})
				ask(i)
			}
			i := 0
			for b.Loop() {
				for _, r := range l.requests {
					if r.phase == granted {
						effects, _ := l.step(time.Time{}, released{r.request})
						finish(effects)
						break
					}
				}
				ask(i)
				i++
			}
		})
	}
}
