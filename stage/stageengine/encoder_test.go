package stageengine

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/stage"
)

// counter is a device that counts the prompts it encodes.
type counter struct {
	device.Device
	batches []int // of every run of a text encoder
}

func (c *counter) NewRun(t *device.Tape, w device.Weights, o device.RunOptions, further ...device.Weights) (device.Run, error) {
	if in := t.Inputs()[0]; in.Name == modeldir.InputIDs {
		c.batches = append(c.batches, in.Array.Shape[0])
	}
	return c.Device.NewRun(t, w, o, further...)
}

const (
	encoderModel = "tiny-sd15"
	remembered   = 8 // prompts
)

// counted gives a loaded encoder, a function that encodes and one that tells the batches since the last call.
func counted(t *testing.T) (e *Stage, encoded func(prompts ...string) [][]byte, batches func() []int) {
	t.Helper()
	library, err := OpenLibrary(filepath.Join(repo, "testdata/golden", encoderModel))
	if err != nil {
		t.Fatal(err)
	}
	d, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // it always returns nil
	c := &counter{Device: d}
	e = newStage(stage.KindEncoder, Options{Library: library, Device: c, Host: "test", WarmBytes: 1 << 30})
	if err := e.Load(t.Context(), stage.LoadRequest{Component: partOf(e, encoderModel)}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := e.Evict(context.Background(), stage.EvictRequest{Component: partOf(e, encoderModel)}); err != nil {
			t.Error(err)
		}
	})
	return e, func(prompts ...string) [][]byte {
			t.Helper()
			states, err := encode(t.Context(), e, encoderModel, prompts...)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(prompts); states.Shape[0] != n {
				t.Fatalf("states %v for %d prompts", states.Shape, n)
			}
			return slices.Collect(slices.Chunk(states.Data, len(states.Data)/len(prompts)))
		}, func() []int {
			b := c.batches
			c.batches = nil
			return b
		}
}

// Prompts that were encoded before cost nothing, in whatever company, and give the same bits; the states
// go with the weights.
func TestEncoderRemembersPrompts(t *testing.T) {
	e, encode, batches := counted(t)
	first := encode("fog", "a boat")
	for _, c := range []struct {
		name    string
		prompts []string
		batches []int
	}{
		{"the first request", nil, []int{2}},
		{"a new prompt", []string{"fog", "a house"}, []int{1}},
		{"a new negative prompt", []string{"", "a house"}, []int{1}},
		{"a known pair", []string{"", "a boat"}, nil},
		{"the other way round", []string{"a boat", "fog"}, nil},
		{"one new prompt twice", []string{"a tree", "a tree"}, []int{1}},
		{"the same tokens", []string{" A  TREE "}, nil},
		{"old before new", []string{"fog", "red"}, []int{1}},
	} {
		if c.prompts != nil {
			states := encode(c.prompts...)
			for i, p := range c.prompts {
				_, fresh, _ := counted(t)
				if !bytes.Equal(states[i], fresh(p)[0]) {
					t.Errorf("%s: the states of %q are not what they are alone", c.name, p)
				}
			}
		}
		if got := batches(); !slices.Equal(got, c.batches) {
			t.Errorf("%s: batches of %v, want %v", c.name, got, c.batches)
		}
	}
	weights := e.books[partOf(e, encoderModel)].component.WeightsBytes
	if used := e.Device.Memory().UsedBytes; used != weights {
		t.Errorf("%d bytes in use, want the %d that were told", used, weights)
	}
	if evicted, err := e.Evict(t.Context(), stage.EvictRequest{Component: partOf(e, encoderModel)}); err != nil || evicted.FreedBytes != weights || e.Device.Memory().UsedBytes != 0 {
		t.Errorf("eviction freed %d bytes of %d (%v), %d stay in use", evicted.FreedBytes, weights, err, e.Device.Memory().UsedBytes)
	}
	if err := e.Load(t.Context(), stage.LoadRequest{Component: partOf(e, encoderModel)}, nil); err != nil {
		t.Fatal(err)
	}
	if again := encode("fog", "a boat"); !slices.EqualFunc(first, again, bytes.Equal) {
		t.Error("other states behind an eviction")
	}
	if got := batches(); !slices.Equal(got, []int{2}) {
		t.Errorf("behind an eviction: batches of %v, want [2]", got)
	}
}

// Of more prompts than there is room for, those used last are kept.
func TestEncoderForgets(t *testing.T) {
	_, encode, batches := counted(t)
	encode("usual")
	for i := range remembered - 1 {
		encode(fmt.Sprintf("prompt %c", 'a'+i))
	}
	encode("usual")
	encode("one more") // instead of prompt a
	batches()
	encode("usual")
	encode("prompt b")
	if got := batches(); got != nil {
		t.Errorf("what should be there was computed, in batches of %v", got)
	}
	encode("prompt a")
	if got := batches(); !slices.Equal(got, []int{1}) {
		t.Errorf("what had to go: batches of %v, want [1]", got)
	}
}

// A prompt's states do not depend on the batch it is encoded in, with any variant of the kernels.
func TestEncoderBatch(t *testing.T) {
	chosen := kernel.Variant()
	defer func() { _ = kernel.Select(chosen) }() // it was selected before
	for _, variant := range kernel.Variants() {
		if err := kernel.Select(variant); err != nil {
			t.Fatal(err)
		}
		prompts := []string{"", "cool face on a pink background"}
		_, encode, _ := counted(t)
		together := encode(prompts...)
		for i, p := range prompts {
			_, encode, _ := counted(t)
			if !bytes.Equal(together[i], encode(p)[0]) {
				t.Errorf("%s: %q alone has other states", variant, p)
			}
		}
	}
}
