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
	// process does. Other is the anonymous memory beside it: Go's heap and stacks.
	arena, other int64
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

// look reads the maps of the processes.
func look(pids map[string]int) (sample, error) {
	s := sample{time: time.Now()}
	for _, pid := range pids {
		if err := s.add(fmt.Sprintf("/proc/%d/smaps", pid)); err != nil {
			return s, err
		}
	}
	return s, nil
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
			if strings.Contains(value+" ", " hg ") {
				s.arena += anonymous
			} else {
				s.other += anonymous
			}
		}
	}
	return lines.Err()
}
