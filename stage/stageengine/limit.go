package stageengine

import "github.com/triptych-serving/triptych/engine/device"

// limiter is a device that can stream weights to stay within a limit.
type limiter interface {
	ResidentWithin(m *device.Manifest, limitBytes int64) int64
}

// limit has a network streamed as the stage is told by its options, or else so that its weights take no more than so
// many bytes, if that can be; 0 is no limit. It reports whether anything is streamed.
func (s *shelf[N]) limit(b *book[N], m *device.Manifest, limitBytes int64) bool {
	if limitBytes != 0 {
		limitBytes = max(1, limitBytes-b.beside())
	}
	m.Streamed, m.ResidentBytes = false, 0
	whole := s.Device.WeightBytes(m)
	fixed, told := s.ResidentBytes[s.kind]
	d, able := s.Device.(limiter)
	switch {
	case told:
		m.Streamed, m.ResidentBytes = true, fixed
	case able && limitBytes != 0 && limitBytes < whole:
		m.Streamed, m.ResidentBytes = true, d.ResidentWithin(m, limitBytes)
	}
	return m.Streamed && s.Device.WeightBytes(m) < whole
}

// limited is what a model's weights take within a limit, or the least they can take; 0 is no limit.
func (s *shelf[N]) limited(b *book[N], limitBytes int64) int64 {
	if limitBytes == 0 || limitBytes >= b.component.WeightsBytes {
		return b.component.WeightsBytes
	}
	m := &device.Manifest{Params: b.network().Manifest().Params}
	s.limit(b, m, limitBytes)
	return s.Device.WeightBytes(m) + b.beside()
}

// beside is what counts as weights and is none.
func (b *book[N]) beside() int64 {
	if b.store == nil {
		return 0
	}
	return b.store.bytes
}
