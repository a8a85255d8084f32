package release

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc/stats"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
)

// calls are those of a stage that leave memory behind.
var calls = map[string]call{
	stagepb.WorkService_Work_FullMethodName:            {job: true},
	stagepb.StageService_LoadComponent_FullMethodName:  {workFollows: true},
	stagepb.StageService_EvictComponent_FullMethodName: {},
}

// turns are those whose triggers have names of old.
var turns = map[string][]Trigger{
	"encode": {PromptEncoded}, "refine_encode": {PromptEncoded},
	"denoise": {DenoiseDone}, "refine": {DenoiseDone}, "hires_denoise": {DenoiseDone},
	"encode_image": {VAEEncoded}, "decode": {VAEDecoded}, "hires_decode": {VAEDecoded}, "enlarge": {VAEDecoded, VAEEncoded},
}

// adapters are the kinds of adapters whose part in a turn has another name than their own.
var adapters = map[string]Trigger{"upscaler": UpscaleDone}

// worked are the triggers of a turn that has been taken: those that it has of old, and one of each kind of adapter beside the component that
// does the work. A turn without any is told by the adapter that does the work, or else by its name.
func (c *Collector) worked(turn string, components []string) (out []Event) {
	triggers := slices.Clone(turns[turn])
	if len(triggers) > 0 {
		components = components[min(1, len(components)):]
	}
	for _, component := range components {
		kind := c.adapter(component)
		if t := cmp.Or(adapters[kind], Trigger(kind+"_done")); kind != "" && !slices.Contains(triggers, t) {
			triggers = append(triggers, t)
		}
	}
	if len(triggers) == 0 {
		triggers = []Trigger{Trigger(turn + "_done")}
	}
	for _, t := range triggers {
		out = append(out, Event{Trigger: t})
	}
	return out
}

// changed is the trigger of a component that was loaded, evicted or dropped.
func (c *Collector) changed(component string) []Event {
	if kind := c.adapter(component); kind != "" {
		return []Event{{Trigger: Trigger(kind + "_changed"), Force: true}}
	}
	return []Event{{Trigger: ModelChanged, Force: true}}
}

func (c *Collector) adapter(component string) string {
	if c.Adapter == nil {
		return ""
	}
	return c.Adapter(component)
}

var _ stats.Handler = (*Collector)(nil)

type callKey struct{}

// TagRPC implements stats.Handler.
func (c *Collector) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if k, ok := calls[info.FullMethodName]; ok {
		return context.WithValue(ctx, callKey{}, &k)
	}
	return ctx
}

// HandleRPC implements stats.Handler. gRPC tells the end of a call behind its answer, and of its messages before that.
func (c *Collector) HandleRPC(ctx context.Context, s stats.RPCStats) {
	k, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.Begin:
		c.begin(*k)
	case *stats.InPayload:
		switch m := s.Payload.(type) {
		case *stagepb.WorkRequest:
			if o := m.GetOpen(); o != nil {
				k.done = c.worked(o.GetTurn(), o.GetComponents())
			}
		case *stagepb.LoadComponentRequest:
			k.done = c.changed(m.GetComponent())
		case *stagepb.EvictComponentRequest:
			k.done = c.changed(m.GetComponent())
		}
	case *stats.End:
		c.end(*k, s.Error == nil)
	}
}

// TagConn implements stats.Handler.
func (c *Collector) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (c *Collector) HandleConn(context.Context, stats.ConnStats) {}
