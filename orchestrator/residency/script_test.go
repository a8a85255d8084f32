package residency

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/triptych-serving/triptych/stage"
)

// TestScripts pins what is decided. A script's only command is "run"; every line of its input is
// something that happens, and the output has it with what was recorded and what is to be done:
//
//	# what follows                             a comment
//	footprint KIND[@CLASS] SET WEIGHTS[,...] SCRATCH [ALL] what a need takes from now on, in bytes; ALL weights, if they are streamed
//	join STAGE KIND DEVICE BUDGET NAME ... [holds=NAME:BYTES] [warm=NAME:BYTES] [warm-memory=BYTES] [draining] [plans=CLASS]
//	silent STAGE | answers STAGE               the service does not answer | does again
//	leave STAGE | seen STAGE GENERATION        the service is gone | is looked at
//	measure STAGE BUDGET FOREIGN [BYTES@SECOND ...]  others hold so much, and want so much since then
//	holds STAGE [resident=NAME:BYTES[:stale]] [warm=NAME:BYTES[:stale]] [before=N]  a look at what is there, asked N ops ago
//	crowded rN                                 the work of a request found bytes taken by others
//	want STAGE                                 what is told to others
//	announce JOB KIND[/SET] ...                a set is NAME or NAME+NAME; it is "starter" if none is given
//	forget JOB
//	ask JOB KIND[/SET] [try|again|identity=IDENTITY]  requests are r1, r2, ... in order
//	cancel rN | release rN | failed rN | exhausted rN | distrust rN
//	loaded STAGE[/NAME] [STAMP/IDENTITY] | evicted STAGE[/NAME] [dropped]   what was to be kept is not
//	load-failed STAGE[/NAME] REASON | evict-failed STAGE[/NAME] REASON
//	policy SETTING=VALUE ...                   settings of Policy, before all else
//	pause DURATION                             what a step takes from now on, 1s without
//	tick                                       time passes
//	ledger                                     what is where
//
// A NAME without a part is of the component that is usual for the kind: "starter" of a denoiser is "starter/unet".
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := newScript(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			if d.Cmd != "run" {
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				line = strings.TrimSpace(line)
				fmt.Fprintf(&out, "%s\n%s", line, s.line(strings.Fields(line)))
			}
			return out.String()
		})
	})
}

// script plays one file's ledger.
type script struct {
	t          *testing.T
	model      *checked
	footprints map[string]map[string]stage.Footprint // by kind/set and class
	last       RequestID
}

func newScript(t *testing.T) *script {
	return &script{t: t, model: newChecked(t), footprints: map[string]map[string]stage.Footprint{}}
}

func (s *script) line(words []string) string {
	cmd, args := words[0], words[1:]
	arg := func(i int) string {
		if i >= len(args) {
			s.t.Fatalf("%v: an argument is missing", words)
		}
		return args[i]
	}
	switch cmd {
	case "#":
		return ""
	case "footprint":
		f := takes(s.number(arg(3)))
		for w := range strings.SplitSeq(arg(2), ",") {
			f.Weights = append(f.Weights, stage.Weights{Bytes: s.number(w), WholeBytes: s.number(w)})
		}
		if len(args) > 4 {
			f.Weights[0].WholeBytes = s.number(arg(4))
		}
		kind, class, _ := strings.Cut(arg(0), "@")
		key := kind + "/" + arg(1)
		s.footprints[key] = maps.Clone(s.footprints[key]) // requests have the one before
		if s.footprints[key] == nil {
			s.footprints[key] = map[string]stage.Footprint{}
		}
		s.footprints[key][class] = f
		return ""
	case "join":
		host, name, _ := strings.Cut(arg(2), "/")
		in := joined{holds: holds{stage: StageID(arg(0)), since: s.model.lastOp}, kind: s.kind(arg(1)), device: Device{Host: host, Name: name, BudgetBytes: s.number(arg(3))}}
		for _, a := range args[4:] {
			what, value, _ := strings.Cut(a, "=")
			switch what {
			case "holds":
				in.resident = append(in.resident, s.held(in.kind, value))
			case "warm":
				in.warm = append(in.warm, s.held(in.kind, value))
			case "warm-memory":
				in.warmBudget = s.number(value)
			case "overhead":
				in.overhead = s.number(value)
			case "draining":
				in.draining = true
			case "plans":
				in.planning = value
			default:
				in.names = append(in.names, full(in.kind, a))
			}
		}
		return s.step(in)
	case "silent", "answers":
		return s.step(silenced{StageID(arg(0)), cmd == "silent"})
	case "leave":
		return s.step(left{StageID(arg(0))})
	case "seen":
		return s.step(seen{StageID(arg(0)), uint64(s.number(arg(1)))})
	case "measure":
		share := stage.DeviceShare{BudgetBytes: s.number(arg(1)), ForeignBytes: s.number(arg(2))}
		for _, a := range args[3:] {
			bytes, since, _ := strings.Cut(a, "@")
			share.ForeignWants = append(share.ForeignWants, stage.Want{Bytes: s.number(bytes), Since: time.Unix(s.number(since), 0)})
		}
		return s.step(measured{stage: StageID(arg(0)), share: share})
	case "holds":
		in := holds{stage: StageID(arg(0)), since: s.model.lastOp}
		kind := s.model.service(in.stage).kind
		for _, a := range args[1:] {
			what, value, _ := strings.Cut(a, "=")
			switch what {
			case "resident":
				in.resident = append(in.resident, s.held(kind, value))
			case "warm":
				in.warm = append(in.warm, s.held(kind, value))
			case "before":
				in.since -= opID(s.number(value))
			default:
				s.t.Fatalf("unknown word %q", a)
			}
		}
		return s.step(in)
	case "crowded":
		return s.step(found{s.request(arg(0)), crowded, ""})
	case "want":
		w := s.model.want(StageID(arg(0)))
		if w.Since.IsZero() {
			return "  nothing\n"
		}
		return fmt.Sprintf("  %d since second %d\n", w.Bytes, w.Since.Unix())
	case "announce":
		in := announced{job: JobID(arg(0))}
		for _, a := range args[1:] {
			in.needs = append(in.needs, s.need(a))
		}
		return s.step(in)
	case "forget":
		return s.step(forgotten{JobID(arg(0))})
	case "ask":
		s.last++
		in := asked{s.last, JobID(arg(0)), s.need(arg(1)), len(args) > 2 && args[2] == "try", len(args) > 2 && args[2] == "again"}
		if len(args) > 2 {
			if _, identity, ok := strings.Cut(args[2], "identity="); ok {
				in.need.Identities = map[string]string{in.need.Components[0]: identity}
			}
		}
		return s.step(in)
	case "cancel":
		return s.step(cancelled{s.request(arg(0)), errors.New("context canceled")})
	case "release":
		return s.step(released{s.request(arg(0))})
	case "exhausted":
		return s.step(found{s.request(arg(0)), exhausted, ""})
	case "distrust":
		return s.step(found{s.request(arg(0)), distrusted, "a test says so"})
	case "failed":
		return s.step(found{s.request(arg(0)), failed, ""})
	case "loaded":
		in := loadDone{op: s.op(arg(0), Loading)}
		if len(args) > 1 {
			in.edition = s.edition(args[1])
		}
		return s.step(in)
	case "evicted":
		c := s.component(arg(0))
		done := evictDone{op: s.op(arg(0), Evicting), freed: c.bytes}
		if c.bytes > 0 && len(args) == 1 {
			done.warm = c.warm
		}
		return s.step(done)
	case "load-failed":
		return s.step(loadFailed{s.op(arg(0), Loading), stage.Errorf(stage.Reason(arg(1)), "%s", strings.ToLower(arg(1)))})
	case "evict-failed":
		return s.step(evictFailed{s.op(arg(0), Evicting), stage.Errorf(stage.Reason(arg(1)), "%s", strings.ToLower(arg(1)))})
	case "policy":
		for _, a := range args {
			s.set(a)
		}
		return ""
	case "pause":
		s.model.pause = s.duration(arg(0))
		return ""
	case "tick":
		return s.step(ticked{})
	case "ledger":
		return describe(&s.model.ledger)
	}
	s.t.Fatalf("unknown operation %q", cmd)
	return ""
}

func (s *script) step(in input) string { return s.model.step(in) }

func (s *script) set(setting string) {
	name, value, _ := strings.Cut(setting, "=")
	p := &s.model.policy
	switch name {
	case "wait-factor":
		p.WaitFactor = s.fraction(value)
	case "pin", "evict-after-use":
		selector, err := ParseSelector(value)
		if err != nil {
			s.t.Fatal(err)
		}
		if name == "pin" {
			p.Never = append(p.Never, selector)
		} else {
			p.AfterUse = append(p.AfterUse, selector)
		}
	case "min-residency":
		p.MinResidency = s.duration(value)
	case "idle-ttl":
		p.IdleTTL = s.duration(value)
	case "low-watermark":
		p.LowWatermark = s.fraction(value)
	case "high-watermark":
		p.HighWatermark = s.fraction(value)
	default:
		s.t.Fatalf("unknown setting %q", name)
	}
}

func (s *script) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *script) fraction(text string) float64 {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

func (s *script) number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) kind(name string) stage.Kind {
	k, ok := stage.ParseKind(name)
	if !ok {
		s.t.Fatalf("unknown kind %q", name)
	}
	return k
}

func (s *script) request(name string) RequestID {
	return RequestID(s.number(strings.TrimPrefix(name, "r")))
}

// held reads NAME:BYTES[:stale].
func (s *script) held(k stage.Kind, text string) stage.ResidentComponent {
	name, bytes, _ := strings.Cut(text, ":")
	bytes, stale, _ := strings.Cut(bytes, ":")
	return stage.ResidentComponent{Name: full(k, name), WeightsBytes: s.number(bytes), Stale: stale}
}

// full reads a NAME.
func full(k stage.Kind, name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return named(k, name)
}

// edition reads STAMP/IDENTITY.
func (s *script) edition(text string) (e stage.Edition) {
	e.Stamp, e.Identity, _ = strings.Cut(text, "/")
	return e
}

// need reads KIND[/SET].
func (s *script) need(text string) Need {
	kind, set, ok := strings.Cut(text, "/")
	if !ok {
		set = "starter"
	}
	f, ok := s.footprints[kind+"/"+set]
	if !ok {
		s.t.Fatalf("%s has no footprint", text)
	}
	n := Need{Kind: s.kind(kind), Footprints: f}
	for name := range strings.SplitSeq(set, "+") {
		n.Components = append(n.Components, full(n.Kind, name))
	}
	return n
}

// component reads STAGE[/NAME].
func (s *script) component(text string) *component {
	id, name, ok := strings.Cut(text, "/")
	if !ok {
		name = "starter"
	}
	v := s.model.service(StageID(id))
	if v == nil || v.find(full(v.kind, name)) == nil {
		s.t.Fatalf("there is no %s", text)
	}
	return v.find(full(v.kind, name))
}

// op is the work under way at a component.
func (s *script) op(text string, state State) opID {
	c := s.component(text)
	if c.state != state {
		s.t.Fatalf("%s is %v", text, c.state)
	}
	return c.op
}

// checked is a ledger whose every step is checked. A step takes a second of its own time.
type checked struct {
	ledger
	t    *testing.T
	name string // in failures
	now  time.Time
	// used is the bytes by device that follow from the record alone.
	used map[string]int64
	// states and workers likewise.
	states  map[place]State
	workers map[StageID]RequestID
	works   map[opID]place // under way
	// sets are what requests have reserved at a service, by the record alone.
	sets  map[StageID]Event
	begun map[place]bool // loads under way
	pause time.Duration  // before each step
	// ahead is how many of its kind each request found, overtaken how often it was.
	ahead, overtaken map[RequestID]int
}

func newChecked(t *testing.T) *checked {
	return &checked{
		t: t, name: t.Name(), now: time.Unix(0, 0), used: map[string]int64{}, states: map[place]State{}, workers: map[StageID]RequestID{}, works: map[opID]place{}, sets: map[StageID]Event{}, begun: map[place]bool{},
		pause: time.Second, ahead: map[RequestID]int{}, overtaken: map[RequestID]int{},
	}
}
