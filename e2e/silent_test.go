//go:build linux

package e2e

import (
	"bufio"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestStoppedService: a service that does not get the processor, as on a starved machine, holds its bytes, and so
// they count; when it goes on it is used as it is.
func TestStoppedService(t *testing.T) {
	addresses, pids := map[string]string{}, map[string]int{}
	for _, kind := range stageNames {
		s := startServer(t, command(t, kind, "--listen", "127.0.0.1:0", "--log-level", "info"))
		addresses[kind], pids[kind] = s.conn.Target(), s.cmd.Process.Pid
	}
	cmd := command(t, "orchestrator", "--listen", "127.0.0.1:0", "--encoder", addresses["encoder"], "--denoiser", addresses["denoiser"], "--decoder", addresses["decoder"])
	errOut, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log := bufio.NewScanner(errOut)
	await := func(n int, text string) (line string) {
		t.Helper()
		for n > 0 && log.Scan() {
			if line = log.Text(); strings.Contains(line, text) {
				n--
			}
		}
		if n > 0 {
			t.Fatalf("the orchestrator ended and did not say %q", text)
		}
		return line
	}
	address := listening.FindStringSubmatch(await(1, "listening"))
	if address == nil {
		t.Fatal("it does not say where it listens")
	}
	other := &server{cmd: cmd}
	if other.conn, err = grpc.NewClient(address[1], grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	other.client = triptychv1alpha1.NewGenerationServiceClient(other.conn)
	used := func() int64 {
		t.Helper()
		stream, err := triptychv1alpha1.NewResidencyServiceClient(other.conn).WatchResidency(t.Context(), &triptychv1alpha1.WatchResidencyRequest{})
		if err != nil {
			t.Fatal(err)
		}
		news, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, d := range news.GetSnapshot().GetDevices() {
			sum += d.GetUsedBytes()
		}
		return sum
	}
	await(3, "stage is there")
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Seed: ptr(uint64(5)), Steps: ptr(int32(2))}
	events, err := other.generate(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := images(t, events)
	before := used()
	if before == 0 {
		t.Fatal("nothing is resident")
	}

	stop(t, pids["denoiser"])
	if line := await(1, "stage does not answer"); !strings.Contains(line, "denoiser") {
		t.Errorf("it says %s", line)
	}
	if now := used(); now != before {
		t.Errorf("%d bytes count of a process that lives and holds %d", now, before)
	}
	if err := syscall.Kill(pids["denoiser"], syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(1, "stage answers again")
	go func() { _, _ = io.Copy(io.Discard, errOut) }()
	if events, err = other.generate(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	same(t, want, images(t, events))
	for _, e := range events {
		if l := e.GetStageLoading(); l != nil {
			t.Errorf("the %s was loaded again", l.GetStage())
		}
	}
	_ = other.conn.Close()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
