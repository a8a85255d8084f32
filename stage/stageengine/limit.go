package stageengine

import "github.com/triptych-serving/triptych/engine/device"

// loadPlan is how a network is held: streamed as the stage is told by its options, or else so that its weights take no more
// than so many bytes, if that can be; 0 is no limit. A device that streams nothing holds them whole, and the limit is refused
// by their bytes. streamed tells whether anything is.
func (s *Stage) loadPlan(b *book, m *device.Manifest, limitBytes int64) (plan device.LoadPlan, streamed bool) {
	if b.part.Whole {
		return plan, false
	}
	if limitBytes != 0 {
		limitBytes = max(1, limitBytes-b.store.Bytes())
	}
	whole := s.Device.WeightBytes(m, plan)
	if fixed, told := s.ResidentBytes[s.kind]; told {
		plan = device.LoadPlan{Streamed: true, ResidentBytes: fixed}
	} else if limitBytes != 0 && limitBytes < whole {
		if fit, err := s.Device.Fit(m, limitBytes); err == nil {
			plan = fit
		}
	}
	return plan, s.Device.WeightBytes(m, plan) < whole
}

// limited is what a component's weights take within a limit, or the least they can take; 0 is no limit.
func (s *Stage) limited(b *book, limitBytes int64) int64 {
	if limitBytes == 0 || limitBytes >= b.component.WeightsBytes {
		return b.component.WeightsBytes
	}
	m := b.network().Files().Manifest()
	plan, _ := s.loadPlan(b, m, limitBytes)
	return s.Device.WeightBytes(m, plan) + b.store.Bytes()
}
