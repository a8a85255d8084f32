//go:build linux

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// TestCleanStopReleases: an orchestrator that is stopped gives its services back at once: the next one has them without a wait.
func TestCleanStopReleases(t *testing.T) {
	args := []string{"orchestrator", "--listen", "127.0.0.1:0"}
	for _, kind := range stage.Kinds() {
		s := startServer(t, command(t, kind.String()))
		args = append(args, "--"+kind.String(), s.conn.Target())
	}
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(1)), WidthPx: ptr(int32(32)), HeightPx: ptr(int32(32))}
	for range 3 {
		o := startServer(t, command(t, args...))
		if _, err := o.generate(t.Context(), spec, nil); err != nil {
			t.Fatal(err)
		}
		if err := o.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := o.cmd.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
		if text := o.log.String(); strings.Contains(text, "another orchestrator") {
			t.Errorf("the services were another orchestrator's:\n%s", text)
		}
	}
}

// TestServicesOfUp: nobody but the orchestrator of `up` has its services, and none of their processes shows what they know each
// other by.
func TestServicesOfUp(t *testing.T) {
	s := up(t)
	conn, err := grpc.NewClient(s.addresses["denoiser"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ids := []string{"", "somebody"}
	secret := regexp.MustCompile(`\b[A-Z2-7]{26}\b`) // as ids are made
	for pid, args := range descendants(t, s.cmd.Process.Pid) {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, secret.FindAllString(args+" "+string(env), -1)...)
	}
	if len(ids) > 2 {
		t.Errorf("processes show %q", ids[2:])
	}
	for _, id := range ids {
		d := stagerpc.New(stagerpc.As(conn, id, ""), stage.KindDenoiser)
		if err := d.Drain(t.Context()); stage.ReasonOf(err) != stage.StageOwned {
			t.Errorf("Drain by %q: %v", id, err)
		}
		if _, err := d.Info(t.Context()); id != "" && stage.ReasonOf(err) != stage.StageOwned {
			t.Errorf("a claim by %q: %v", id, err)
		}
	}
	if _, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(1))}, nil); err != nil {
		t.Errorf("a request afterwards: %v", err)
	}
}
