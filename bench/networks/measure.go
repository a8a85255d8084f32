package networks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/models"
	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/bench/randommodel"
	"github.com/triptych-serving/triptych/bench/stat"
)

// Options say what is measured and how.
type Options struct {
	Threads int
	Run     *regexp.Regexp // of Work.Name; nil takes every row
	Reps    int            // at most
	// Time bounds the repetitions of a row and the sides that take turns; MinReps are made all the same.
	Time  time.Duration
	Self  []string // our program as a child, before the arguments of the protocol
	Peers []Engine
	Cache string // folder of what peers keep, and of this package's own files
	Log   func(format string, args ...any)
}

// MinReps is how often every side works at least, the first time, which does not count, left out. A peer whose first
// run takes longer than Options.Time takes no turns: that run is its figure.
const MinReps = 3

// Engine is a way to start a side.
type Engine struct {
	Name  string
	Start func(ctx context.Context, w Work, threads int) (side, peer.Hello, error)
	// Needs is the memory it takes beside the weights, for a guess of how many may be loaded at once.
	Needs int64
	Ours  bool // it holds weights as they are stored
}

// Row is one piece of work on our side and on the others.
type Row struct {
	Name    string  `json:"name"`
	Model   string  `json:"model"`
	Network string  `json:"network"`
	GFLOP   float64 `json:"gflop"`
	Ours    Side    `json:"ours"`
	// GFLOPS is our rate at the median, PeakShare that to the FMA peak of all threads.
	GFLOPS    float64 `json:"ours_gflops"`
	PeakShare float64 `json:"ours_peak_share"`
	Peers     []Side  `json:"peers,omitempty"`
}

// Side is one engine's part of a row.
type Side struct {
	Name        string            `json:"name"`
	Engine      string            `json:"engine,omitempty"`
	Versions    map[string]string `json:"versions,omitempty"`
	Notes       map[string]any    `json:"notes,omitempty"`
	Ms          stat.Summary      `json:"ms"`
	Samples     []float64         `json:"samples_ms,omitempty"`
	LoadSeconds float64           `json:"load_seconds,omitempty"`
	PeakRSS     int64             `json:"peak_rss_bytes,omitempty"`
	PeakLedger  int64             `json:"peak_ledger_bytes,omitempty"` // what the device gave out of it; 0 of others
	// OursMs is our time in the turns that were shared with this side, or that came before it, Ratio its median to that of Ms:
	// below 1 we are faster. MemoryRatio is our peak to its.
	OursMs      *stat.Summary `json:"ours_ms,omitempty"`
	Ratio       float64       `json:"ratio,omitempty"`
	MemoryRatio float64       `json:"memory_ratio,omitempty"`
	Check       *Check        `json:"check,omitempty"`
	Problem     string        `json:"problem,omitempty"` // why there is no such peer, or none any more
}

// Measure makes the rows of the work that Run takes, in its order; images also on services, which may be none. A peer
// that cannot be had is told in its place; an error is our own side's.
func Measure(ctx context.Context, o Options, list []Work, services Engine, l *limits.Limits) ([]Row, error) {
	peers := o.Peers
	var rows []Row
	for _, w := range list {
		if o.Run != nil && !o.Run.MatchString(w.Name) {
			continue
		}
		o.Peers = peers
		switch {
		case w.Network == peer.Image && services.Start != nil:
			o.Peers = append([]Engine{services}, peers...)
		case w.LoRA > 0:
			o.Peers = []Engine{withoutLoRA(o.Self)}
		case o.Threads > 1 && w.OneThread:
			o.Peers = append([]Engine{oneThread(o.Self)}, peers...)
		}
		l.FMA.Raise(o.Threads, l.Threads)
		row, err := measureRow(ctx, o, w)
		if row.Ours.Ms.Reps > 0 { // also what was measured before an interruption
			row.GFLOPS = row.GFLOP / row.Ours.Ms.Median * 1e3
			row.PeakShare = row.GFLOPS / l.FMA.For(o.Threads)
			rows = append(rows, row)
		}
		if err != nil {
			return rows, fmt.Errorf("%s: %w", w.Name, errors.Join(ctx.Err(), err))
		}
	}
	return rows, nil
}

// player is a side that takes turns.
type player struct {
	side
	info    *Side
	last    result
	first   float64   // milliseconds of the run that does not count
	samples []float64 // of the turns of this group
	gone    bool      // it took its turns and was closed, to make room for others
}

func measureRow(ctx context.Context, o Options, w Work) (Row, error) {
	m, err := models.Open(w.Model.Path)
	if err != nil {
		return Row{}, err
	}
	flops, stored, err := w.size(m)
	if err != nil {
		return Row{}, err
	}
	dir, err := os.MkdirTemp(o.Cache, "row-")
	if err != nil {
		return Row{}, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // leftovers are in the cache, which may be deleted
	inputs, err := w.inputs(dir, m)
	if err != nil {
		return Row{}, err
	}
	row := Row{Name: w.Name, Model: w.Model.Name, Network: w.Network, GFLOP: flops / 1e9, Ours: Side{Name: "triptych"}, Peers: make([]Side, len(o.Peers))}
	request := w.request(inputs)

	self := o.Self
	if w.LoRA > 0 {
		file := filepath.Join(dir, "lora.safetensors")
		if err := randommodel.WriteLoRA(file, m.UNet, w.LoRA); err != nil {
			return row, err
		}
		self = withLoRA(self, file)
	}
	us := &player{info: &row.Ours}
	if err := us.start(ctx, Engine{Name: "triptych", Start: Program(self)}, w, o, request); err != nil {
		return row, err
	}
	defer us.close()
	if len(o.Peers) == 0 {
		return row, errors.Join(takeTurns(ctx, o, us, nil, request), us.finish())
	}
	if !fits(o.Peers, stored, limits.AvailableMemory()) {
		o.Log("%s: memory does not hold another side beside us: we work first, then they", w.Name)
		if err := us.leave(ctx, o, request); err != nil {
			return row, err
		}
	}
	for at := 0; at < len(o.Peers); {
		n := together(o.Peers[at:], stored, limits.AvailableMemory())
		var them []*player
		for i, e := range o.Peers[at : at+n] {
			p := &player{info: &row.Peers[at+i]}
			p.info.Name = e.Name
			if err := p.start(ctx, e, w, o, request); err != nil {
				p.info.Problem = err.Error()
				o.Log("%s: no %s: %v", w.Name, e.Name, err)
				continue
			}
			them = append(them, p)
		}
		at += n
		err := takeTurns(ctx, o, us, them, request)
		for _, p := range them {
			if e := p.finish(); e != nil && p.info.Problem == "" {
				p.info.Problem = e.Error()
			}
			p.close()
		}
		if err != nil {
			if !us.gone {
				_ = us.finish() // the first error says more
			}
			return row, err
		}
	}
	if len(us.info.Samples) == 0 { // no peer was there
		if err := takeTurns(ctx, o, us, nil, request); err != nil {
			return row, err
		}
	}
	if !us.gone {
		if err := us.finish(); err != nil {
			return row, err
		}
	}
	for i := range row.Peers {
		if p := &row.Peers[i]; p.PeakRSS > 0 {
			p.MemoryRatio = float64(row.Ours.PeakRSS) / float64(p.PeakRSS)
		}
	}
	return row, nil
}

// together is how many of the engines may be loaded at once: all of them, or one.
func together(engines []Engine, stored, available int64) int {
	need := int64(0)
	for _, e := range engines {
		need += e.Needs + 6*stored // float16 in the files; in float32, and once more while loading or packed
	}
	if available > 0 && need > available*7/10 {
		return 1
	}
	return len(engines)
}

// fits reports whether each of the engines may be loaded beside us, who are loaded already.
func fits(engines []Engine, stored, available int64) bool {
	for _, e := range engines {
		need := e.Needs + stored
		if !e.Ours {
			need += 3 * stored / 2 // float32, and some of what it works on
		}
		if available > 0 && need > available {
			return false
		}
	}
	return true
}

// leave lets a side take its turns alone, and closes it.
func (p *player) leave(ctx context.Context, o Options, request peer.Request) error {
	err := errors.Join(takeTurns(ctx, o, p, nil, request), p.finish())
	p.close()
	p.gone = true
	return err
}

// start starts a side and lets it work once without counting.
func (p *player) start(ctx context.Context, e Engine, w Work, o Options, request peer.Request) error {
	s, hello, err := e.Start(ctx, w, o.Threads)
	if err != nil {
		return err
	}
	p.side = s
	p.info.Engine, p.info.Versions, p.info.Notes, p.info.LoadSeconds = hello.Engine, hello.Versions, hello.Notes, hello.LoadSeconds
	seconds, out, more, err := s.do(request)
	if err != nil {
		s.close()
		return err
	}
	o.Log("%s: %s is there, first run %.2f s", w.Name, e.Name, seconds)
	if more.LoadSeconds > 0 {
		p.info.LoadSeconds = more.LoadSeconds
	}
	if more.Notes != nil {
		notes := maps.Clone(p.info.Notes)
		if notes == nil {
			notes = map[string]any{}
		}
		maps.Copy(notes, more.Notes)
		p.info.Notes = notes
	}
	p.last, p.first = out, 1e3*seconds
	return nil
}

// finish sums up what was measured.
func (p *player) finish() error {
	p.info.Ms = stat.Summarize(p.info.Samples)
	var err error
	p.info.PeakRSS, p.info.PeakLedger, err = p.peak()
	return err
}

// settle is the pause before work, in which the threads of the sides that worked before go to sleep.
const settle = 50 * time.Millisecond

// takeTurns lets us, unless we are gone, and the others work in rotation, each beginning in turn, and compares the results. A
// peer that fails is left out from then on; an error is our own.
func takeTurns(ctx context.Context, o Options, us *player, them []*player, request peer.Request) error {
	var all []*player
	if !us.gone {
		us.samples, all = nil, []*player{us}
	}
	for _, p := range them {
		if p.last.values == nil && p.last.png == nil {
			continue // it cannot be given inputs
		}
		c, err := compare(us.last, p.last)
		if err != nil {
			p.info.Problem = err.Error()
		}
		p.info.Check = c
	}
	for _, p := range them {
		switch {
		case p.info.Problem != "":
		case o.Time > 0 && p.first > 1e3*o.Time.Seconds():
			p.samples = []float64{p.first}
		default:
			all = append(all, p)
		}
	}
	start := time.Now()
	for rep := 0; rep < o.Reps && (rep < MinReps || time.Since(start) < o.Time*time.Duration(len(all))); rep++ {
		for i := range all {
			p := all[(i+rep)%len(all)]
			if p != us && p.info.Problem != "" {
				continue
			}
			time.Sleep(settle)
			seconds, _, _, err := p.do(turn(request, rep))
			switch {
			case err != nil && p == us:
				return err
			case err != nil:
				p.info.Problem = fmt.Sprintf("left out after %d repetitions: %v", rep, err)
				continue
			}
			p.samples = append(p.samples, 1e3*seconds)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for _, p := range them {
		p.info.Samples = append(p.info.Samples, p.samples...)
	}
	if !us.gone {
		us.info.Samples = append(us.info.Samples, us.samples...)
	}
	ours := stat.Summarize(us.samples)
	for _, p := range them {
		if len(p.samples) > 0 {
			shared := ours
			p.info.OursMs, p.info.Ratio = &shared, ours.Median/stat.Summarize(p.samples).Median
		}
	}
	return nil
}
