package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// sample is the memory of all runtimes at a moment.
type sample struct {
	time time.Time
	// Arena is resident in the device's mappings: those that asked for huge pages, which nothing else in the
	// process does. Of these, warm is what nobody may read. Other is the anonymous memory beside them: Go's heap and stacks.
	arena, warm, other int64
}

// sampler reads the runtimes' memory again and again.
type sampler struct {
	samples []sample
	err     error
	done    chan struct{}
	cancel  context.CancelFunc
}

func startSampler(pids map[string]int, every time.Duration) *sampler {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sampler{done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(s.done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for s.err == nil {
			var now sample
			if now, s.err = look(pids); s.err == nil {
				s.samples = append(s.samples, now)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return s
}

// stop gives what was seen.
func (s *sampler) stop() ([]sample, error) {
	s.cancel()
	<-s.done
	return s.samples, s.err
}

// look reads the maps of the processes, one after another, until all of them are as they were the time before: else one could be
// seen before it gave up what another has meanwhile.
func look(pids map[string]int) (sample, error) {
	before := map[string]sample{}
	for {
		sum, same := sample{time: time.Now()}, true
		for stage, pid := range pids {
			var s sample
			if err := s.add(fmt.Sprintf("/proc/%d/smaps", pid)); err != nil {
				return s, err
			}
			same = same && s.arena == before[stage].arena && s.warm == before[stage].warm
			before[stage] = s
			sum.arena, sum.warm, sum.other = sum.arena+s.arena, sum.warm+s.warm, sum.other+s.other
		}
		if same {
			return sum, nil
		}
	}
}

// add adds one process: mapping by mapping, of which the flags come last.
func (s *sample) add(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var anonymous int64
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch name {
		case "Anonymous":
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			anonymous = kib << 10
		case "VmFlags":
			switch flags := value + " "; {
			case !strings.Contains(flags, " hg "):
				s.other += anonymous
			case strings.Contains(flags, " rd "):
				s.arena += anonymous
			default:
				s.warm += anonymous
			}
		}
	}
	return lines.Err()
}
