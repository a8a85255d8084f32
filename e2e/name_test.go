//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestReplicasByName: a request waits for a denoiser of which no address is known, and is made once one is listed; one that is killed
// in the middle of its work and no longer listed hands over to one that was listed meanwhile. Images are the same.
func TestReplicasByName(t *testing.T) {
	dns := &fleettest.DNS{}
	dns.Set("denoiser.test")
	_, port, err := net.SplitHostPort(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	denoiser := func(ip string) *server {
		return startServer(t, command(t, "denoiser", "--listen", net.JoinHostPort(ip, port), "--log-level", "info"))
	}
	encoder, decoder := startServer(t, command(t, "encoder", "--listen", "127.0.0.1:0")), startServer(t, command(t, "decoder", "--listen", "127.0.0.1:0"))
	o := startServer(t, command(t, "orchestrator", "--listen", "127.0.0.1:0", "--encoder", encoder.conn.Target(), "--decoder", decoder.conn.Target(),
		"--denoiser", fmt.Sprintf("dns://%s/denoiser.test:%s", dns.Serve(t), port)))
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Seed: ptr(uint64(5)), Steps: ptr(int32(60))}

	var first, second *server
	var listed, worked time.Time
	waited := ""
	events, err := o.generate(t.Context(), spec, func(e *triptychv1alpha1.GenerateResponse) {
		if why := e.GetQueued().GetReason(); strings.Contains(why, "no address behind denoiser.test:"+port) && first == nil {
			waited = why
			first = denoiser("127.0.0.2")
			dns.Set("denoiser.test", "127.0.0.2")
			listed = time.Now()
		}
		if e.GetProgress().GetStage() == "denoiser" && worked.IsZero() {
			worked = time.Now()
		}
	})
	if err != nil || waited == "" {
		t.Fatalf("%v, told why it waits as %q", err, waited)
	}
	t.Logf("worked %v after it was listed", worked.Sub(listed))
	want := images(t, events)

	events, err = o.generate(t.Context(), spec, func(e *triptychv1alpha1.GenerateResponse) {
		if p := e.GetProgress(); p.GetStage() == "denoiser" && p.GetStep() > 20 && second == nil {
			second = denoiser("127.0.0.3")
			dns.Set("denoiser.test", "127.0.0.3")
			_ = first.cmd.Process.Signal(os.Kill)
			_ = first.cmd.Wait()
		}
	})
	if err != nil || second == nil {
		t.Fatalf("%v, killed: %v", err, second != nil)
	}
	same(t, want, images(t, events))
	restarted := false
	for _, e := range events {
		restarted = restarted || e.GetWarning().GetCode() == "STAGE_RESTARTED"
	}
	if !restarted {
		t.Error("nobody told that the work was taken over")
	}
	if events, err = o.generate(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	same(t, want, images(t, events))
}
