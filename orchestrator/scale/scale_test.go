package scale

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

var epoch = time.Unix(1_700_000_000, 0)

// need is a turn of so many evaluations, with weights of 500 MB.
func need(kind stage.Kind, model string, evaluations int) residency.Need {
	component := model + "/" + kind.String()
	return residency.Need{
		Kind: kind, Components: []string{component}, Work: residency.Workload{Model: model, Turn: kind.String(), Shape: "s", Evaluations: evaluations},
		Footprints: map[string]stage.Footprint{"": {Weights: []stage.Weights{{Component: component, Bytes: 500_000_000, WholeBytes: 500_000_000}}, ScratchBytes: 1}},
	}
}

func held(kind stage.Kind, model string, state residency.State) residency.ComponentUse {
	return residency.ComponentUse{Stage: "s", Kind: kind, Component: model + "/" + kind.String(), State: state, WarmBytes: map[bool]int64{true: 1}[state == residency.Warm]}
}

// done is the end of work that took so many seconds.
func done(n residency.Need, seconds float64) residency.Event {
	return residency.Event{
		Time: epoch, Action: residency.Release, Class: residency.WorkDone, Kind: n.Kind, Components: n.Components, Work: n.Work,
		Took: time.Duration(seconds * float64(time.Second)),
	}
}

func TestSums(t *testing.T) {
	waiting := func(job string, n residency.Need) residency.Waiter {
		return residency.Waiter{Job: residency.JobID(job), Need: n, Since: epoch}
	}
	unet := need(stage.KindDenoiser, "m", 10)
	resident := []residency.ComponentUse{held(stage.KindDenoiser, "m", residency.Resident)}
	working := residency.StageUse{Stage: "s", Kind: stage.KindDenoiser, Job: "a", Components: unet.Components, Leased: true, Work: unet.Work, Since: epoch.Add(-3 * time.Second)}
	counting := working
	counting.First, counting.Done, counting.Total = 4, 4, 10
	going := working
	going.First, going.Done, going.Total = 2, 6, 10
	over := working
	over.Since = epoch.Add(-time.Hour)
	for name, c := range map[string]struct {
		s         residency.Snapshot
		unplanned []Unplanned
		learned   []residency.Event
		want      []Sum
	}{
		"nothing":            {},
		"nominal, and loads": {s: residency.Snapshot{Waiting: []residency.Waiter{waiting("a", unet)}}, want: []Sum{{stage.KindDenoiser, "m", 1, 10*NominalSeconds + 1}}},
		"one load for two": {
			s:    residency.Snapshot{Waiting: []residency.Waiter{waiting("a", unet), waiting("b", unet)}},
			want: []Sum{{stage.KindDenoiser, "m", 2, 20*NominalSeconds + 1}},
		},
		"at the measured pace of loads": {
			s: residency.Snapshot{
				Waiting: []residency.Waiter{waiting("a", unet)}, LoadPaces: []residency.LoadPace{{Kind: stage.KindDenoiser, FromFiles: 10e-9, FromWarm: 1e-9}},
			},
			want: []Sum{{stage.KindDenoiser, "m", 1, 10*NominalSeconds + 5}},
		},
		"from warm": {
			s: residency.Snapshot{
				Waiting: []residency.Waiter{waiting("a", unet)}, LoadPaces: []residency.LoadPace{{Kind: stage.KindDenoiser, FromFiles: 10e-9, FromWarm: 1e-9}},
				Components: []residency.ComponentUse{held(stage.KindDenoiser, "m", residency.Warm)},
			},
			want: []Sum{{stage.KindDenoiser, "m", 1, 10*NominalSeconds + 0.5}},
		},
		"resident elsewhere is not loaded": {
			s:    residency.Snapshot{Waiting: []residency.Waiter{waiting("a", unet)}, Components: resident},
			want: []Sum{{stage.KindDenoiser, "m", 1, 10 * NominalSeconds}},
		},
		"as measured": {
			s:       residency.Snapshot{Waiting: []residency.Waiter{waiting("a", unet)}, Components: resident},
			learned: []residency.Event{done(need(stage.KindDenoiser, "m", 4), 2)},
			want:    []Sum{{stage.KindDenoiser, "m", 1, 5}},
		},
		"announced turns": {
			s: residency.Snapshot{
				Components: resident,
				Announced:  []residency.Announced{{Job: "a", Need: unet, Times: 3}, {Job: "a", Need: need(stage.KindDecoder, "m", 1), Times: 1}},
			},
			want: []Sum{{stage.KindDenoiser, "m", 3, 30 * NominalSeconds}, {stage.KindDecoder, "m", 1, NominalSeconds + 1}},
		},
		"evaluations left": {s: residency.Snapshot{Time: epoch, Stages: []residency.StageUse{counting}, Components: resident}, want: []Sum{{stage.KindDenoiser, "m", 0, 6 * NominalSeconds}}},
		"time left": {
			s: residency.Snapshot{Time: epoch, Stages: []residency.StageUse{working}, Components: resident}, learned: []residency.Event{done(unet, 20)},
			want: []Sum{{stage.KindDenoiser, "m", 0, 20 - 3}},
		},
		"by what is under way, while nothing like it was measured": { // 4 in 3 s
			s:    residency.Snapshot{Time: epoch, Stages: []residency.StageUse{going}, Waiting: []residency.Waiter{waiting("b", unet)}, Components: resident},
			want: []Sum{{stage.KindDenoiser, "m", 1, (10 - 6 + 10) * 0.75}},
		},
		"as measured, whatever is under way": {
			s:       residency.Snapshot{Time: epoch, Stages: []residency.StageUse{going}, Waiting: []residency.Waiter{waiting("b", unet)}, Components: resident},
			learned: []residency.Event{done(unet, 20)},
			want:    []Sum{{stage.KindDenoiser, "m", 1, (10 - 6 + 10) * 2}},
		},
		"longer than usual":  {s: residency.Snapshot{Time: epoch, Stages: []residency.StageUse{over}, Components: resident}, want: []Sum{{stage.KindDenoiser, "m", 0, 0}}},
		"not yet at work":    {s: residency.Snapshot{Stages: []residency.StageUse{{Stage: "s", Kind: stage.KindDenoiser, Job: "a", Components: unet.Components, Work: unet.Work}}}},
		"planned by a model": {unplanned: []Unplanned{{Job: "u", Asked: "m", Model: "m", Needs: []residency.Need{unet}}}, want: []Sum{{stage.KindDenoiser, "m", 1, 10*NominalSeconds + 1}}},
		"of no known model": {
			unplanned: []Unplanned{{Job: "u", Asked: "whatever a caller writes"}},
			want:      []Sum{{stage.KindEncoder, "", 1, NominalSeconds}, {stage.KindDenoiser, "", 1, NominalSeconds}, {stage.KindDecoder, "", 1, NominalSeconds}},
		},
		"planned since": {
			s:         residency.Snapshot{Waiting: []residency.Waiter{waiting("u", unet)}, Components: resident},
			unplanned: []Unplanned{{Job: "u", Asked: "m", Model: "m", Needs: []residency.Need{unet, unet}}},
			want:      []Sum{{stage.KindDenoiser, "m", 1, 10 * NominalSeconds}},
		},
	} {
		var p Paces
		for _, e := range c.learned {
			p.Learn(e)
		}
		if diff := cmp.Diff(c.want, Of(c.s, c.unplanned, &p).Sums(), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestDemand(t *testing.T) {
	wait := func(job string, evaluations int, model string) residency.Waiter {
		return residency.Waiter{Job: residency.JobID(job), Need: need(stage.KindDenoiser, model, evaluations)}
	}
	shared := need(stage.KindDenoiser, "m", 2)
	shared.Work.Model = "n"
	all := []residency.ComponentUse{held(stage.KindDenoiser, "m", residency.Resident), held(stage.KindDenoiser, "n", residency.Resident)}
	for name, c := range map[string]struct {
		s         residency.Snapshot
		unplanned []Unplanned
		target    Target
		want      Demand
	}{
		"nothing":      {target: Target{stage.KindDenoiser, nil, 30}},
		"small jobs":   {residency.Snapshot{Components: all, Waiting: []residency.Waiter{wait("a", 10, "m"), wait("b", 15, "m")}}, nil, Target{stage.KindDenoiser, nil, 30}, Demand{true, 25}},
		"another kind": {residency.Snapshot{Components: all, Waiting: []residency.Waiter{wait("a", 10, "m")}}, nil, Target{stage.KindDecoder, nil, 30}, Demand{}},
		"another pool": {residency.Snapshot{Components: all, Waiting: []residency.Waiter{wait("a", 10, "m")}}, nil, Target{stage.KindDenoiser, []string{"n"}, 30}, Demand{}},
		"its pool":     {residency.Snapshot{Components: all, Waiting: []residency.Waiter{wait("a", 10, "m"), wait("b", 7, "n")}}, nil, Target{stage.KindDenoiser, []string{"n", "o"}, 30}, Demand{true, 7}},
		"a job alone fills one replica": {
			residency.Snapshot{Components: all, Waiting: []residency.Waiter{wait("a", 100, "m")}, Announced: []residency.Announced{{Job: "a", Need: need(stage.KindDenoiser, "m", 100), Times: 7}}},
			nil,
			Target{stage.KindDenoiser, nil, 30},
			Demand{true, 30},
		},
		"a long one does not take the place of others": {
			residency.Snapshot{Components: all, Waiting: []residency.Waiter{wait("a", 100, "m"), wait("b", 1, "m")}}, nil, Target{stage.KindDenoiser, nil, 30}, Demand{true, 31},
		},
		"a load that another pool needs as well": {
			residency.Snapshot{Waiting: []residency.Waiter{{Job: "a", Need: need(stage.KindDenoiser, "m", 1)}, {Job: "b", Need: shared}}}, nil, Target{stage.KindDenoiser, []string{"n"}, 30}, Demand{true, 2 + 1},
		},
		"two turns at once fill two": {
			residency.Snapshot{Components: all, Waiting: []residency.Waiter{wait("a", 100, "m"), wait("a", 100, "m")}}, nil, Target{stage.KindDenoiser, nil, 30}, Demand{true, 60},
		},
		"a load does not take two": {residency.Snapshot{
			Waiting: []residency.Waiter{wait("a", 1, "m")}, LoadPaces: []residency.LoadPace{{Kind: stage.KindDenoiser, FromFiles: 1e-6}},
		}, nil, Target{stage.KindDenoiser, nil, 30}, Demand{true, 30}},
		"asked for by name": {residency.Snapshot{}, []Unplanned{{Job: "u", Asked: "n"}}, Target{stage.KindDenoiser, []string{"n"}, 30}, Demand{true, NominalSeconds}},
		"not by this name":  {residency.Snapshot{}, []Unplanned{{Job: "u", Asked: "x"}}, Target{stage.KindDenoiser, []string{"n"}, 30}, Demand{}},
		"by no name":        {residency.Snapshot{}, []Unplanned{{Job: "u"}}, Target{stage.KindDenoiser, []string{"n"}, 30}, Demand{true, NominalSeconds}},
		"work that is over its time": {
			residency.Snapshot{Time: epoch, Components: all, Stages: []residency.StageUse{{Kind: stage.KindDenoiser, Job: "a", Leased: true, Since: epoch.Add(-time.Hour), Work: residency.Workload{Model: "m"}}}},
			nil,
			Target{stage.KindDenoiser, nil, 30},
			Demand{true, 0},
		},
	} {
		var p Paces // a second an evaluation
		for _, model := range []string{"m", "n"} {
			p.Learn(done(need(stage.KindDenoiser, model, 10), 10))
		}
		if diff := cmp.Diff(c.want, Of(c.s, c.unplanned, &p).Demand(c.target), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestBacklogGrows: another request never lowers a backlog, whatever it is added to and whoever looks, as long as nothing new is measured; seconds are numbers that are not
// negative; work that begins stays; and when all have ended there is none.
func TestBacklogGrows(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		models := []string{"m", "n", "o"}
		random := func() residency.Need {
			return need(stage.Kinds()[r.IntN(3)], models[r.IntN(3)], 1+r.IntN(50))
		}
		job := func() residency.JobID { return residency.JobID(fmt.Sprint("job", r.IntN(5))) }
		var p Paces
		for range r.IntN(20) {
			p.Learn(done(random(), r.ExpFloat64()))
		}
		s := residency.Snapshot{Time: epoch}
		var unplanned []Unplanned
		for range r.IntN(4) {
			s.Components = append(s.Components, held(stage.Kinds()[r.IntN(3)], models[r.IntN(3)], residency.State(r.IntN(5))))
		}
		for _, kind := range stage.Kinds() {
			s.LoadPaces = append(s.LoadPaces, residency.LoadPace{Kind: kind, FromFiles: r.ExpFloat64() * 1e-9, FromWarm: r.ExpFloat64() * 1e-10})
		}
		last := Of(s, unplanned, &p)
		if len(last.Sums()) > 0 {
			t.Fatalf("seed %d: there is work before any request: %v", seed, last.Sums())
		}
		for range 30 {
			switch n := random(); r.IntN(5) {
			case 0:
				s.Waiting = append(s.Waiting, residency.Waiter{Job: job(), Need: n})
			case 1:
				s.Announced = append(s.Announced, residency.Announced{Job: job(), Need: n, Times: 1 + r.IntN(5)})
			case 2:
				s.Stages = append(s.Stages, residency.StageUse{
					Kind: n.Kind, Job: job(), Components: n.Components, Leased: true, Work: n.Work, First: 60, Done: r.IntN(60), Total: r.IntN(50), Since: epoch.Add(time.Duration(r.IntN(100)-50) * time.Second),
				})
			case 3:
				unplanned = append(unplanned, Unplanned{Job: residency.JobID(fmt.Sprint("new", len(unplanned))), Asked: models[r.IntN(3)]})
			case 4:
				unplanned = append(unplanned, Unplanned{Job: residency.JobID(fmt.Sprint("new", len(unplanned))), Model: "m", Needs: []residency.Need{n, random()}})
			}
			next := Of(s, unplanned, &p)
			for _, kind := range stage.Kinds() {
				for _, only := range [][]string{nil, {"m"}, {"n", "o"}} {
					target := Target{kind, only, 0.5 + 40*r.Float64()}
					before, after := last.Demand(target), next.Demand(target)
					if after.Seconds < before.Seconds-1e-9 || before.Active && !after.Active {
						t.Fatalf("seed %d: one more request made %+v of %+v for %v", seed, after, before, target)
					}
					if !(after.Seconds >= 0) || math.IsInf(after.Seconds, 0) || after.Seconds > 0 && !after.Active {
						t.Fatalf("seed %d: %+v for %v", seed, after, target)
					}
				}
			}
			total := func(b Backlog) (requests int, seconds float64) {
				for _, s := range b.Sums() {
					requests, seconds = requests+s.Requests, seconds+s.Seconds
				}
				return requests, seconds
			}
			wereRequests, wereSeconds := total(last)
			if requests, seconds := total(next); requests < wereRequests || !(seconds >= wereSeconds-1e-9) {
				t.Fatalf("seed %d: one more request made %d, %v s of %d, %v s", seed, requests, seconds, wereRequests, wereSeconds)
			}
			last = next
		}
	}
}
