package fleet_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
)

// shares has a service tell how it shares its device.
func shares(s *fleettest.Service, host, claim string) {
	s.Edit(func(i *stage.Info) { i.Host, i.Device, i.DeviceClaims = host, "cpu:0", claim })
}

// looks passes some time in which every service is asked again.
func looks() {
	time.Sleep(5 * time.Second) // of the bubble's
	synctest.Wait()
}

// TestUnsharedDevice: of two services that name one memory and do not share its claim, the first to come works. The other gets
// no work, is told of with both addresses and the flags that help, and works once the mistake is corrected.
func TestUnsharedDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fleettest.New(t, fleettest.Trio()...)
		encoder, denoiser, decoder := r.Services[0], r.Services[1], r.Services[2]
		shares(encoder, "node", "one")
		shares(denoiser, "node", "two")
		shares(decoder, "node", "one")
		encoder.Start()
		looks()
		denoiser.Start()
		decoder.Start()
		looks()
		for kind, s := range map[stage.Kind]*fleettest.Service{stage.KindEncoder: encoder, stage.KindDecoder: decoder} {
			if p := problem(r, kind); p != "" {
				t.Errorf("%s shares the claim of the first, and is told: %s", s.Address, p)
			}
		}
		p := problem(r, stage.KindDenoiser)
		for _, part := range []string{"cpu:0", `"node"`, "--device-claims", "--host"} {
			if !strings.Contains(p, part) {
				t.Errorf("the problem does not tell %s: %s", part, p)
			}
		}
		if !strings.Contains(p, encoder.Address) && !strings.Contains(p, decoder.Address) {
			t.Errorf("the problem does not tell with whom: %s", p)
		}
		logged := 0
		for _, line := range r.Logs.All() {
			if line == "stage gets no work: "+p {
				logged++
			}
		}
		if logged != 1 {
			t.Errorf("it was logged %d times: %q", logged, r.Logs.All())
		}
		if complete(r) {
			t.Error("the fleet is ready without a denoiser")
		}
		for _, s := range r.Keeper.Snapshot().Stages {
			if s.Kind == stage.KindDenoiser {
				t.Errorf("the keeper may use %+v", s)
			}
		}
		shares(denoiser, "node", "one")
		looks()
		if p := problem(r, stage.KindDenoiser); p != "" || !complete(r) {
			t.Errorf("corrected, it is told: %s", p)
		}
		load(t, r)
	})
}

// TestClaimLostAtWork: a service that no longer shares the claim keeps its bytes in the ledger and gets no work; it has what it
// had when the other one is gone.
func TestClaimLostAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fleettest.New(t, fleettest.Trio()...)
		for _, s := range r.Services {
			shares(s, "node", "one")
			s.Start()
		}
		r.Known(t)
		load(t, r)
		synctest.Wait()
		before := r.Used()
		shares(r.Service(stage.KindDenoiser), "node", "two")
		looks()
		if now := r.Used(); now != before || before == 0 || problem(r, stage.KindDenoiser) == "" {
			t.Errorf("%d bytes count, want %d; the problem is %q", now, before, problem(r, stage.KindDenoiser))
		}
		for _, kind := range []stage.Kind{stage.KindEncoder, stage.KindDecoder} {
			if err := r.Service(kind).Stop(); err != nil {
				t.Fatal(err)
			}
		}
		looks()
		if p := problem(r, stage.KindDenoiser); p != "" || r.Used() != before {
			t.Errorf("alone on the device it is told: %s; %d bytes count", p, r.Used())
		}
	})
}

// TestNewClaim: when somebody removes the directory, all tell its new id one after the other, and work on.
func TestNewClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fleettest.New(t, fleettest.Trio()...)
		for _, s := range r.Services {
			shares(s, "node", "one")
			s.Start()
		}
		r.Known(t)
		for _, s := range r.Services {
			shares(s, "node", "two")
		}
		looks()
		for _, kind := range stage.Kinds() {
			if p := problem(r, kind); p != "" {
				t.Errorf("the %v: %s", kind, p)
			}
		}
	})
}

// TestSharedElsewhere: services on other hosts or devices have claims of their own, and one without a claim has no part in it.
func TestSharedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fleettest.New(t, fleettest.Trio()...)
		shares(r.Services[0], "node", "one")
		shares(r.Services[1], "other", "two")
		shares(r.Services[2], "node", "")
		for _, s := range r.Services {
			s.Start()
		}
		looks()
		if !complete(r) {
			t.Errorf("problems: %+v", r.Fleet.Services())
		}
	})
}
