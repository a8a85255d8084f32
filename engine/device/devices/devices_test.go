package devices

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
)

// A device opens by each of its names, and tells the full one.
func TestOpen(t *testing.T) {
	for name, want := range map[string]string{"cpu": "cpu:0", "cpu:0": "cpu:0", "cpu:3": "cpu:3"} {
		d, err := Open(name, Options{Threads: 1, MemoryCapBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		full, err := Name(name)
		if d.Name() != want || full != want || err != nil {
			t.Errorf("%s is named %s and %s, %v; want %s", name, d.Name(), full, err, want)
		}
		if m := d.Memory(); m != (device.Memory{CapBytes: 1 << 20}) {
			t.Errorf("%s: memory %+v", name, m)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A name that is in no table is refused with those that are.
func TestUnknown(t *testing.T) {
	for _, name := range []string{"", "tpu:0", "cpu:", "cpu:-1", "cpu:+1", "cpu:01", "cpu:x", "cpu:0:1", "cpu:99999999999", "CPU", "cuda:-1", ":0"} {
		_, err1 := Open(name, Options{})
		_, err2 := Plan(name, Options{})
		_, err3 := Name(name)
		for _, err := range []error{err1, err2, err3} {
			var f *device.FieldError
			if !errors.As(err, &f) || !strings.Contains(f.Expected, "cpu:N") || !strings.Contains(f.Expected, "cuda:N") || !strings.Contains(f.Got, name) {
				t.Errorf("%q: %v, want a FieldError with the known kinds", name, err)
			}
		}
	}
}

// A device that this build does not have is refused as that, and says what it would take.
func TestAbsent(t *testing.T) {
	for name, full := range map[string]string{"cuda": "cuda:0", "cuda:1": "cuda:1"} {
		_, err1 := Open(name, Options{})
		_, err2 := Plan(name, Options{})
		for _, err := range []error{err1, err2} {
			var u *device.UnsupportedError
			if !errors.Is(err, device.ErrUnsupported) || !errors.As(err, &u) || u.Device != full || !strings.Contains(u.Needs, "engine/device/cuda") {
				t.Errorf("%s: %v, want an UnsupportedError that names what is missing", name, err)
			}
		}
	}
}

// What is planned is what an opened device does, and nothing can be loaded on it.
func TestPlan(t *testing.T) {
	o := Options{Threads: 2, MemoryCapBytes: 1 << 30}
	p, err := Plan("cpu", o)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open("cpu", o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n := devicetest.Block(1, 2, 40)
	for _, plan := range []device.LoadPlan{{}, {Streamed: true}} {
		if a, b := p.WeightBytes(n.Manifest, plan), d.WeightBytes(n.Manifest, plan); a != b || a == 0 {
			t.Errorf("%+v: %d bytes planned, %d opened", plan, a, b)
		}
	}
	for _, limit := range []int64{0, 1} {
		run := device.RunOptions{ScratchLimit: limit}
		a, err1 := p.ScratchBytes(n.Tape, run)
		b, err2 := d.ScratchBytes(n.Tape, run)
		if err := errors.Join(err1, err2); a != b || a == 0 || err != nil {
			t.Errorf("within %d: %d bytes planned, %d opened, %v", limit, a, b, err)
		}
	}
	if p.Name() != "cpu:0" || p.Memory() != (device.Memory{CapBytes: 1 << 30}) || p.Activity() != (device.Activity{}) || p.Close() != nil {
		t.Errorf("%s: memory %+v, activity %+v", p.Name(), p.Memory(), p.Activity())
	}
	_, err1 := p.Load(context.Background(), n.Manifest, device.LoadPlan{}, n, nil)
	_, err2 := p.NewRun(n.Tape, nil, device.RunOptions{})
	for _, err := range []error{err1, err2, p.CheckSpill(1)} {
		if !errors.Is(err, device.ErrUnsupported) {
			t.Errorf("%v, want %v", err, device.ErrUnsupported)
		}
	}
}
