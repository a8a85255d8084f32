package stack

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Memory looks at the anonymous memory of all processes again and again until stop is called, which gives the most there was at once.
func (s *Stack) Memory(every time.Duration) (stop func() (most int64, err error), err error) {
	below, err := tree(s.PID())
	if err != nil {
		return nil, err
	}
	pids := []int{s.PID()}
	for pid := range below {
		pids = append(pids, pid)
	}
	var (
		most int64
		bad  error
		done = make(chan struct{})
		wg   sync.WaitGroup
	)
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for bad == nil {
			sum := int64(0)
			for _, pid := range pids {
				var bytes int64
				if bytes, bad = anonymous(pid); bad != nil {
					return
				}
				sum += bytes
			}
			most = max(most, sum)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() (int64, error) {
		close(done)
		wg.Wait()
		return most, bad
	}, nil
}

// anonymous is the resident memory of a process that no file backs.
func anonymous(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), "RssAnon:")
	kib, _, _ := strings.Cut(rest, "kB")
	n, err := strconv.ParseInt(strings.TrimSpace(kib), 10, 64)
	return n << 10, err
}
