package stagetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/triptych-serving/triptych/stage"
)

// Op is the kind of work that a script can interfere with: a load or a turn.
type Op string

// The kinds. A step of OpLoad is a quarter of the weights, of OpEncode a prompt, of OpDenoise an
// evaluation, of OpDecode a row of latents, of OpEncodeImage the whole file.
const (
	OpLoad        Op = "load"
	OpEncode      Op = "encode"
	OpDenoise     Op = "denoise"
	OpDecode      Op = "decode"
	OpEncodeImage Op = "encode_image"
)

// Script says what happens to a fake before a step of its work; steps of a call count from 1. Each
// entry happens once, to the first call that gets there. The zero Script interferes with nothing.
// Safe for concurrent use.
type Script struct {
	mu      sync.Mutex
	entries map[point]func(context.Context) error
	steps   map[Op]int
	settings
}

// settings are what a fake is, rather than what happens to it.
type settings struct {
	warm    int64
	threads int
	compute string
	edition stage.Edition
}

type point struct {
	op   Op
	step int
}

func (s *Script) on(op Op, step int, do func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = map[point]func(context.Context) error{}
	}
	s.entries[point{op, step}] = do
}

// Fail makes the call fail with err.
func (s *Script) Fail(op Op, step int, err error) {
	s.on(op, step, func(context.Context) error { return err })
}

// Hold makes the call wait until the gate is released or its context ends.
func (s *Script) Hold(op Op, step int) *Gate {
	g := newGate()
	s.on(op, step, func(ctx context.Context) error {
		close(g.entered)
		select {
		case <-g.released:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return g
}

// Stall makes the call wait until the gate is released, even when its context has ended meanwhile.
func (s *Script) Stall(op Op, step int) *Gate {
	g := newGate()
	s.on(op, step, func(ctx context.Context) error {
		close(g.entered)
		<-g.released
		return ctx.Err()
	})
	return g
}

// Warm gives the fake memory for so many bytes of warm weights; it has none without.
func (s *Script) Warm(bytes int64) { s.set(func(v *settings) { v.warm = bytes }) }

// Threads makes the fake one of so many threads, each of which takes scratch; it has one without.
func (s *Script) Threads(n int) { s.set(func(v *settings) { v.threads = n }) }

// Compute has the fake tell that it computes in a type.
func (s *Script) Compute(name string) { s.set(func(v *settings) { v.compute = name }) }

// Change exchanges the files of every model of the fake.
func (s *Script) Change(e stage.Edition) { s.set(func(v *settings) { v.edition = e }) }

func (s *Script) set(change func(*settings)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.settings)
}

func (s *Script) get() settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.settings
	v.threads = max(1, v.threads)
	return v
}

// Steps is how many steps of op were begun so far.
func (s *Script) Steps(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.steps[op]
}

// at is called by a fake before each step of its work.
func (s *Script) at(ctx context.Context, op Op, step int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.steps == nil {
		s.steps = map[Op]int{}
	}
	s.steps[op]++
	do := s.entries[point{op, step}]
	delete(s.entries, point{op, step})
	s.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx)
}

// A Gate holds a call.
type Gate struct {
	entered, released chan struct{}
	once              sync.Once
}

func newGate() *Gate { return &Gate{entered: make(chan struct{}), released: make(chan struct{})} }

// Entered is closed when a call is held.
func (g *Gate) Entered() <-chan struct{} { return g.entered }

// Release lets the call go on; again does nothing.
func (g *Gate) Release() { g.once.Do(func() { close(g.released) }) }

// ParseScript reads a script for a fake in another process: entries separated by semicolons, each
// of them "fail OP STEP REASON", "panic OP STEP", "exit OP STEP CODE", "hold OP STEP" (until the
// call is cancelled) or "warm BYTES".
func ParseScript(text string) (*Script, error) {
	s := &Script{}
	for entry := range strings.SplitSeq(text, ";") {
		words := strings.Fields(entry)
		if len(words) == 0 {
			continue
		}
		if err := s.parse(words); err != nil {
			return nil, fmt.Errorf("stagetest: script entry %q: %w", strings.TrimSpace(entry), err)
		}
	}
	return s, nil
}

func (s *Script) parse(words []string) error {
	if words[0] == "warm" && len(words) == 2 {
		bytes, err := strconv.ParseInt(words[1], 10, 64)
		s.Warm(bytes)
		return err
	}
	if len(words) < 3 || len(words) > 4 {
		return fmt.Errorf("want 3 or 4 words, got %d", len(words))
	}
	op, arg := Op(words[1]), strings.Join(words[3:], "")
	step, err := strconv.Atoi(words[2])
	if err != nil {
		return err
	}
	switch words[0] {
	case "panic":
		s.on(op, step, func(context.Context) error { panic(fmt.Sprintf("scripted panic at step %d of %s", step, op)) })
	case "hold":
		s.Hold(op, step)
	case "fail":
		s.Fail(op, step, stage.Errorf(stage.Reason(arg), "scripted failure at step %d of %s", step, op))
	case "exit":
		code, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		s.on(op, step, func(context.Context) error {
			os.Exit(code)
			return nil
		})
	default:
		return errors.New("no such action, want fail, panic, exit, hold or warm")
	}
	return nil
}
