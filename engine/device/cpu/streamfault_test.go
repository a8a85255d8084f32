package cpu_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// faulty is a source whose reads can be made to fail, or do something else first.
type faulty struct {
	device.Source
	each atomic.Pointer[func(parameter string) error]
}

type faultyReader struct {
	io.ReaderAt
	parameter string
	source    *faulty
}

func (f *faulty) Section(name string) (*io.SectionReader, error) {
	s, err := f.Source.Section(name)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(faultyReader{s, name, f}, 0, s.Size()), nil
}

func (r faultyReader) ReadAt(p []byte, off int64) (int, error) {
	if each := r.source.each.Load(); each != nil {
		if err := (*each)(r.parameter); err != nil {
			return 0, err
		}
	}
	return r.ReaderAt.ReadAt(p, off)
}

// hold has the next read wait until proceed.
func (f *faulty) hold() (proceed func()) {
	held := make(chan struct{})
	var once atomic.Bool
	wait := func(string) error {
		if once.CompareAndSwap(false, true) {
			<-held
		}
		return nil
	}
	f.each.Store(&wait)
	return func() { close(held) }
}

// streamedBlock is a run over weights of which nothing but vectors is resident, and what it gives undisturbed.
func streamedBlock(t *testing.T) (d *cpu.Device, n *devicetest.Network, src *faulty, w device.Weights, r device.Run, want []float32) {
	t.Helper()
	d, n = open(t, cpu.Options{Threads: 2}), devicetest.Block(1, 1, 9)
	// An Embed has a part of its own: a table that is read by rows.
	ids := n.IDs(300, 1, 5)
	n.Tape.Output("rows", n.Tape.Embed(device.Embed{IDs: ids, Tokens: n.Param(device.Table, tensor.F16, 1, 300, 16), Positions: n.Param(device.Table, tensor.F32, 1, 5, 16)}))
	src = &faulty{Source: n}
	w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{Streamed: true}, src, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Free)
	if r, err = d.NewRun(n.Tape, w, device.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Free)
	fillBlock(t, r, n)
	if err := r.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d, n, src, w, r, output(t, r, n.Tape)
}

func fillBlock(t *testing.T, r device.Run, n *devicetest.Network) {
	t.Helper()
	for _, in := range n.Tape.Inputs() {
		err := r.Write(in.Name, n.Inputs[in.Name])
		if in.IDs {
			err = r.WriteIDs(in.Name, []int32{0, 1, 299, 7, 1})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Whichever parameter cannot be read again: the run says so, and goes on when it can be.
func TestStreamReadFails(t *testing.T) {
	d, n, src, _, r, want := streamedBlock(t)
	gone, used := errors.New("the disk is gone"), d.Memory().UsedBytes
	streamed := 0
	for _, p := range n.Manifest.Params {
		if p.Layout == device.Vector {
			continue
		}
		streamed++
		fail := func(parameter string) error {
			if parameter == p.Name {
				return gone
			}
			return nil
		}
		src.each.Store(&fail)
		err := r.Execute(t.Context())
		var stream *device.StreamError
		if !errors.As(err, &stream) || stream.Parameter != p.Name || stream.Device != d.Name() || !errors.Is(err, gone) {
			t.Errorf("%s fails: %v", p.Name, err)
		}
		src.each.Store(nil)
		if err := r.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(output(t, r, n.Tape), want) {
			t.Errorf("%s failed once: other bits behind it", p.Name)
		}
	}
	if streamed < 9 || d.Memory().UsedBytes != used {
		t.Errorf("%d parameters were streamed, %d bytes in use, %d before", streamed, d.Memory().UsedBytes, used)
	}
}

// However far the reading has come when a context ends, the execution ends with it, and the next gives the same.
func TestStreamCancelled(t *testing.T) {
	_, n, src, _, r, want := streamedBlock(t)
	for at := 1; ; at++ {
		ctx, cancel := context.WithCancel(t.Context())
		var reads atomic.Int64
		stop := func(string) error {
			if reads.Add(1) == int64(at) {
				cancel()
			}
			return nil
		}
		src.each.Store(&stop)
		err := r.Execute(ctx)
		src.each.Store(nil)
		cancel()
		if err == nil && reads.Load() < int64(at) {
			if at < 8 {
				t.Errorf("only %d reads", at)
			}
			return
		}
		// The last reads are those of the embedding, behind which nothing looks at the context.
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at read %d: %v", at, err)
		}
		if err := r.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(output(t, r, n.Tape), want) {
			t.Errorf("cancelled at read %d: other bits behind it", at)
		}
	}
}

// Who waits for another's turn can be cancelled; weights freed meanwhile wait for the execution, and none follows.
func TestStreamFreedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, n, src, w, r, want := streamedBlock(t)
		other, err := d.NewRun(n.Tape, w, device.RunOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(other.Free)
		proceed := src.hold()
		executed, waited := make(chan error, 1), make(chan error, 1)
		go func() { executed <- r.Execute(context.Background()) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { waited <- other.Execute(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-waited; !errors.Is(err, context.Canceled) {
			t.Errorf("waiting for the turn: %v, want context.Canceled", err)
		}
		var freed atomic.Bool
		go func() {
			w.Free()
			freed.Store(true)
		}()
		synctest.Wait()
		if freed.Load() {
			t.Error("the weights were freed while they were read")
		}
		proceed()
		if err := <-executed; err != nil || !slices.Equal(output(t, r, n.Tape), want) {
			t.Errorf("the execution beside Free: %v, or other bits", err)
		}
		synctest.Wait()
		if m := d.Memory(); !freed.Load() || m.UsedBytes != r.Bytes()+other.Bytes() {
			t.Errorf("behind Free: memory %+v, want that of two runs", m)
		}
		if err := r.Execute(t.Context()); !errors.Is(err, device.ErrFreed) {
			t.Errorf("behind Free: %v, want %v", err, device.ErrFreed)
		}
	})
}
