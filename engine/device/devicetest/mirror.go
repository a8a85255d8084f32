package devicetest

import (
	"io"
	"sync"

	"github.com/triptych-serving/triptych/engine/device"
)

// mirror is a Source that keeps what a load reads of another one, so that the same can be loaded again without it. What a
// load leaves to be streamed is read from the other one each time.
type mirror struct {
	source device.Source

	mu       sync.Mutex
	sections map[string]*mirrored
}

// mirrored is a parameter.
type mirrored struct {
	stored *io.SectionReader

	mu    sync.Mutex
	data  []byte // nil if it is not kept
	read  int64  // bytes of data
	ended bool   // the first load
}

func (m *mirror) Section(name string) (*io.SectionReader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.sections[name]
	if p == nil {
		stored, err := m.source.Section(name)
		if err != nil {
			return nil, err
		}
		p = &mirrored{stored: stored}
		if m.sections == nil {
			m.sections = map[string]*mirrored{}
		}
		m.sections[name] = p
	}
	return io.NewSectionReader(p, 0, p.stored.Size()), nil
}

// loaded ends the first load.
func (m *mirror) loaded() {
	for _, p := range m.sections {
		p.ended = true
		if p.read != p.stored.Size() {
			p.data = nil
		}
	}
}

func (p *mirrored) ReadAt(data []byte, off int64) (int, error) {
	if p.ended && p.data != nil {
		return copy(data, p.data[off:]), nil // a SectionReader asks for nothing behind the end
	}
	n, err := p.stored.ReadAt(data, off)
	if p.ended {
		return n, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.data == nil {
		p.data = make([]byte, p.stored.Size())
	}
	p.read += int64(copy(p.data[off:], data[:n]))
	return n, err
}
