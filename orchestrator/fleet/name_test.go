package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// denoiser is a service at 10.0.2.n.
func denoiser(n int) *fleettest.Service {
	return fleettest.At(stage.KindDenoiser, fmt.Sprintf("10.0.2.%d:7422", n))
}

// others are services of the other kinds, which run, and dns knows them.
func others(dns *fleettest.DNS) []*fleettest.Service {
	encoder, decoder := fleettest.At(stage.KindEncoder, "10.0.1.1:7421"), fleettest.At(stage.KindDecoder, "10.0.3.1:7423")
	encoder.Start()
	decoder.Start()
	dns.Set("encoder", "10.0.1.1")
	dns.Set("decoder", "10.0.3.1")
	return []*fleettest.Service{encoder, decoder}
}

// told is what the fleet tells of a kind: each address with what is wrong there.
func told(r *fleettest.Rig, kind stage.Kind) (out []string) {
	for _, s := range r.Fleet.Services() {
		if s.Kind == kind {
			out = append(out, strings.TrimSuffix(s.Address+": "+s.Problem, ": "))
		}
	}
	return out
}

// pass lets time pass in a bubble, and everybody react.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func tells(t *testing.T, r *fleettest.Rig, want ...string) {
	t.Helper()
	if got := told(r, stage.KindDenoiser); !slices.Equal(got, want) {
		t.Errorf("told is %q, want %q", got, want)
	}
}

// kept is what the keeper knows of denoisers.
func kept(r *fleettest.Rig) (out []residency.StageID) {
	for _, s := range r.Keeper.Snapshot().Stages {
		if s.Kind == stage.KindDenoiser {
			out = append(out, s.Stage)
		}
	}
	return out
}

// TestName: every address behind a name is a service of its own. One that is listed later gets work within a look-up; one that is not
// listed any more stays while it answers, and is then forgotten.
func TestName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dns fleettest.DNS
		first, second, third := denoiser(1), denoiser(2), denoiser(3)
		r := fleettest.Named(t, &dns, append(others(&dns), first, second, third)...)
		dns.Set("denoiser", "10.0.2.1", "::ffff:10.0.2.2")
		first.Start()
		second.Start()
		pass(2 * time.Second)
		tells(t, r, first.Address, second.Address)
		third.Start()
		dns.Set("denoiser", "10.0.2.1", "10.0.2.2", "10.0.2.3")
		listed := time.Now()
		if err := r.Fleet.Await(fleettest.Soon(t), func() bool { return slices.Contains(kept(r), third.ID()) }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(listed); took > time.Second {
			t.Errorf("it took %v until a service that is listed gets work", took)
		}
		dns.Set("denoiser", "10.0.2.1")
		pass(time.Minute)
		tells(t, r, first.Address, second.Address, third.Address)
		second.Edit(func(i *stage.Info) { i.Draining = true })
		pass(2 * time.Second)
		tells(t, r, first.Address, second.Address+": it takes no new work", third.Address)
		for _, s := range []*fleettest.Service{first, second, third} {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		}
		pass(2 * time.Second)
		tells(t, r, first.Address+": it cannot be reached")
		if got := kept(r); len(got) > 0 {
			t.Errorf("the keeper has %v", got)
		}
		third.Start() // and is not listed
		pass(time.Minute)
		tells(t, r, first.Address+": it cannot be reached")
		dns.Set("denoiser", "10.0.2.3")
		pass(2 * time.Second)
		tells(t, r, third.Address)
	})
}

// TestNameProblems: a look-up that fails changes nothing and is told; a name without addresses is told as that.
func TestNameProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dns fleettest.DNS
		s := denoiser(1)
		r := fleettest.Named(t, &dns, append(others(&dns), s)...)
		s.Start()
		const empty = "dns:///denoiser:7422: no address behind denoiser:7422"
		pass(2 * time.Second)
		tells(t, r, empty) // no such host
		dns.Set("denoiser")
		pass(2 * time.Second)
		tells(t, r, empty)
		if err := r.Fleet.Absent(stage.KindDenoiser, nil); err == nil || err.Message != "no denoiser service that has the model answers; no address behind denoiser:7422" {
			t.Errorf("who waits is told %v", err)
		}
		dns.Set("denoiser", "10.0.2.1")
		pass(2 * time.Second)
		tells(t, r, s.Address)
		dns.Fail(true)
		pass(time.Minute)
		tells(t, r, s.Address, "dns:///denoiser:7422: the addresses behind denoiser:7422 cannot be looked up: server misbehaving")
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		pass(time.Minute)
		if got := told(r, stage.KindDenoiser); len(got) != 2 {
			t.Errorf("a failing look-up makes the fleet forget: %q", got)
		}
		dns.Fail(false)
		dns.Set("denoiser")
		pass(2 * time.Second)
		tells(t, r, empty)
		for _, line := range []string{"no address behind", "cannot be looked up"} {
			n := 0
			for _, said := range r.Logs.All() {
				if strings.Contains(said, line+" denoiser") || strings.Contains(said, "denoiser:7422 "+line) {
					n++
				}
			}
			if want := map[string]int{"no address behind": 2, "cannot be looked up": 1}[line]; n != want {
				t.Errorf("%q was logged %d times, want %d: %q", line, n, want, r.Logs.All())
			}
		}
	})
}

// TestNames: several names and addresses stand for one kind; an address behind two of them is one service, and none of two kinds.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dns fleettest.DNS
		all := []*fleettest.Service{denoiser(1), denoiser(2), denoiser(3)}
		for _, s := range all {
			s.Start()
		}
		r := fleettest.With(t, fleet.Options{Resolver: &dns, Addresses: map[stage.Kind][]string{
			stage.KindDenoiser: {"dns:///fast:7422", "dns:slow:7422", all[2].Address},
			stage.KindDecoder:  {"dns:///decoders:7422"},
		}}, all...)
		dns.Set("fast", "10.0.2.1", "10.0.2.3")
		dns.Set("slow", "10.0.2.1", "10.0.2.2")
		pass(2 * time.Second)
		tells(t, r, all[0].Address, all[1].Address, all[2].Address)
		dns.Set("decoders", "10.0.2.2", "10.0.9.9")
		pass(2 * time.Second)
		if got := told(r, stage.KindDecoder); !slices.Equal(got, []string{
			"10.0.9.9:7422: it cannot be reached", "dns:///decoders:7422: 10.0.2.2:7422, which is behind decoders:7422, is an address of the denoiser too",
		}) {
			t.Errorf("told is %q", got)
		}
		dns.Set("fast")
		for _, s := range all {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		}
		pass(2 * time.Second)
		tells(t, r, all[0].Address+": it cannot be reached", all[1].Address+": it cannot be reached", all[2].Address+": it cannot be reached",
			"dns:///fast:7422: no address behind fast:7422")
		dns.Set("slow")
		pass(2 * time.Second)
		tells(t, r, all[2].Address+": it cannot be reached", "dns:///fast:7422: no address behind fast:7422", "dns:slow:7422: no address behind slow:7422")
	})
}

// TestKnownWithoutReplica: what was known of the models of a stage outlives its last service.
func TestKnownWithoutReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		var dns fleettest.DNS
		s := denoiser(1)
		r := fleettest.Named(t, &dns, append(others(&dns), s)...)
		dns.Set("denoiser", "10.0.2.1")
		s.Start()
		plan := func(latent int64) error {
			_, err := r.Fleet.Plan(expired(t), kind, tiny(kind, latent), nil, nil)
			return err
		}
		if _, err := r.Fleet.Plan(fleettest.Soon(t), kind, tiny(kind, 8), nil, nil); err != nil {
			t.Fatal(err)
		}
		dns.Set("denoiser")
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		pass(2 * time.Second)
		tells(t, r, "dns:///denoiser:7422: no address behind denoiser:7422")
		if m, err := r.Fleet.Model(t.Context(), stagetest.Model, 0); err != nil || len(m.Recipes) != 1 {
			t.Errorf("the model is %+v, %v", m, err)
		}
		if _, err := r.Fleet.Model(t.Context(), "sd9", time.Hour); stage.ReasonOf(err) != stage.ModelNotFound {
			t.Errorf("a model that nobody has: %v", err)
		}
		if err := plan(8); err != nil {
			t.Errorf("a plan that is known: %v", err)
		}
		if err := plan(6); !unreachable(err, kind) || !strings.Contains(err.Error(), "no address behind denoiser:7422") {
			t.Errorf("a plan that is not: %v", err)
		}
		if len(r.Fleet.Models()) == 0 {
			t.Error("the models are forgotten")
		}
	})
}

// TestUnheardName: a model of which a stage is missing may be behind a name that has told nothing yet; who asks for it waits.
func TestUnheardName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dns fleettest.DNS
		s, late := denoiser(1), denoiser(2)
		s.Edit(func(i *stage.Info) {
			without := func(name string) bool { return name != stagetest.Model }
			i.Models = slices.DeleteFunc(slices.Clone(i.Models), func(m stage.Model) bool { return without(m.Name) == false })
			i.Components = slices.DeleteFunc(slices.Clone(i.Components), func(c stage.Component) bool { return c.Model == stagetest.Model })
		})
		services := append(others(&dns), s, late)
		r := fleettest.With(t, fleet.Options{Resolver: &dns, Addresses: map[stage.Kind][]string{
			stage.KindEncoder: {"dns:///encoder:7421"}, stage.KindDenoiser: {"dns:///one:7422", "dns:///two:7422"}, stage.KindDecoder: {"dns:///decoder:7423"},
		}}, services...)
		dns.Set("one", "10.0.2.1")
		dns.Set("two")
		s.Start()
		r.Known(t)
		if _, err := r.Fleet.Model(t.Context(), stagetest.Model, time.Second); !unreachable(err, stage.KindDenoiser) || !strings.Contains(err.Error(), "no address behind two:7422") {
			t.Errorf("who waits for a name is told %v", err)
		}
		if _, err := r.Fleet.Model(t.Context(), "sd9", time.Hour); stage.ReasonOf(err) != stage.ModelNotFound {
			t.Errorf("a model that nobody has: %v", err)
		}
		late.Start()
		dns.Set("two", "10.0.2.2")
		if _, err := r.Fleet.Model(t.Context(), stagetest.Model, time.Minute); err != nil {
			t.Errorf("once it is there: %v", err)
		}
		dns.Set("two")
		if err := late.Stop(); err != nil {
			t.Error(err)
		}
		pass(2 * time.Second)
		if _, err := r.Fleet.Model(t.Context(), stagetest.Model, 0); err != nil {
			t.Errorf("once it is gone: %v", err)
		}
	})
}

// TestForgotten: a service that was forgotten cannot be reached, and nobody who still names it is harmed; work under way there ends as
// it would.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dns fleettest.DNS
		s := denoiser(1)
		r := fleettest.Named(t, &dns, append(others(&dns), s)...)
		dns.Set("denoiser", "10.0.2.1")
		s.Start()
		pass(2 * time.Second)
		had := r.Fleet.Stage(s.ID())
		gate := s.Script.Hold(stagetest.OpDenoise, 2)
		worked := make(chan error, 1)
		go func() {
			req := stagetest.Request(stage.KindDenoiser)
			if err := had.Load(fleettest.Soon(t), stage.LoadRequest{Component: req.Components[0]}, nil); err != nil {
				worked <- err
				return
			}
			_, err := had.Work(fleettest.Soon(t), req, stage.Observer{})
			worked <- err
		}()
		<-gate.Entered()
		dns.Set("denoiser")
		s.Edit(func(i *stage.Info) { i.Kind = stage.KindDecoder }) // as if another program were there
		pass(2 * time.Second)
		tells(t, r, "dns:///denoiser:7422: no address behind denoiser:7422")
		for _, is := range []stage.Stage{had, r.Fleet.Stage(s.ID())} {
			if _, err := is.Info(t.Context()); stage.ReasonOf(err) != stage.StageUnreachable {
				t.Errorf("it says %v", err)
			}
			if _, err := is.Work(t.Context(), stagetest.Request(stage.KindDenoiser), stage.Observer{}); stage.ReasonOf(err) != stage.StageUnreachable {
				t.Errorf("it works: %v", err)
			}
		}
		r.Fleet.Report(s.ID())
		r.Fleet.Ask(s.ID())
		if r.Fleet.Mute(s.ID()) {
			t.Error("it is mute")
		}
		ctx, end := r.Fleet.Until(t.Context(), s.ID(), false)
		<-ctx.Done()
		end()
		gate.Release()
		if err := <-worked; err != nil {
			t.Errorf("the work under way ended with %v", err)
		}
	})
}

// TestTargets: what a name is, and what none is.
func TestTargets(t *testing.T) {
	try := func(addresses ...string) error {
		f, err := fleet.New(fleet.Options{Addresses: map[stage.Kind][]string{stage.KindDenoiser: addresses}, Dial: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}})
		if err != nil {
			return err
		}
		return f.Close()
	}
	for _, good := range [][]string{
		{"dns:///a:1"},
		{"dns:a:1"},
		{"dns://127.0.0.1:5353/a:1"},
		{"dns://10.0.0.10/a:1"},
		{"dns://[fd00::a]/a:1"},
		{"dns:///[::1]:1"},
		{"a:1"},
		{"unix:/run/x"},
		{"dns:///a:1", "dns:///a:2", "dns://127.0.0.1/a:1", "a:1"},
	} {
		if err := try(good...); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range [][]string{{"dns:///a"}, {"dns:///:1"}, {"dns:///a:0"}, {"dns:///a:no-such-port"}, {"dns:a"}, {"dns:///a:1", "dns:a:1"}, {"dns:///a.:1", "dns:///a:1"}, {"dns:///a/b:1"}} {
		if err := try(bad...); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestTwoAddresses: a service behind two addresses of a name counts once, at the one where it was found first, and at the other when
// it is gone from there.
func TestTwoAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dns fleettest.DNS
		first, second := denoiser(1), denoiser(2)
		for _, s := range []*fleettest.Service{first, second} {
			s.Edit(func(i *stage.Info) { i.Instance = "one" })
		}
		r := fleettest.Named(t, &dns, append(others(&dns), first, second)...)
		first.Start()
		dns.Set("denoiser", "10.0.2.1")
		pass(2 * time.Second)
		second.Start()
		dns.Set("denoiser", "10.0.2.1", "10.0.2.2")
		pass(10 * time.Second)
		tells(t, r, first.Address)
		if got := kept(r); !slices.Equal(got, []residency.StageID{first.ID()}) {
			t.Errorf("the keeper has %v", got)
		}
		if err := first.Stop(); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		tells(t, r, first.Address+": it cannot be reached", second.Address)
		first.Start()
		pass(10 * time.Second)
		tells(t, r, second.Address)
		dns.Set("denoiser", "10.0.2.2")
		pass(10 * time.Second)
		second.Edit(func(i *stage.Info) { i.Instance = "another" })
		pass(2 * time.Second)
		tells(t, r, second.Address)
		if got := kept(r); !slices.Equal(got, []residency.StageID{second.ID()}) {
			t.Errorf("the keeper has %v", got)
		}
	})
}
