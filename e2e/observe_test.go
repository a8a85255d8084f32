//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// scrape gives the families of a server's metrics.
func scrape(t *testing.T, s *server) map[string]*dto.MetricFamily {
	t.Helper()
	answer, err := http.Get("http://" + s.addresses["metrics"] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// byKind is the loads of a family, by kind of stage.
func byKind(f *dto.MetricFamily) map[string]float64 {
	out := map[string]float64{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "kind" {
				out[l.GetValue()] += m.GetCounter().GetValue()
			}
		}
	}
	return out
}

// TestMetrics: `up --metrics-listen` tells where it is scraped, and an image's loads are there.
func TestMetrics(t *testing.T) {
	s := up(t, "--metrics-listen", "127.0.0.1:0")
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(2))}
	if _, err := s.generate(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	families := scrape(t, s)
	for _, kind := range stageNames {
		if n := byKind(families["triptych_loads_total"])[kind]; n != 1 {
			t.Errorf("%v loads of the %s, want 1", n, kind)
		}
	}
}

var stageNames = []string{"encoder", "denoiser", "decoder"}

// traced is a running `triptych trace`.
type traced struct {
	cmd    *exec.Cmd
	file   string
	stderr *bufio.Reader
	stdout bytes.Buffer
}

// startTrace runs the command until it listens.
func startTrace(t *testing.T, s *server, args ...string) *traced {
	t.Helper()
	r := &traced{file: filepath.Join(t.TempDir(), "trace.json")}
	r.cmd = command(t, append([]string{"trace", "-o", r.file, "--server", s.addresses["orchestrator"]}, args...)...)
	r.cmd.Stdout = &r.stdout
	errOut, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.stderr = bufio.NewReader(errOut)
	if line, err := r.stderr.ReadString('\n'); err != nil || !strings.HasPrefix(line, "listening") {
		t.Fatalf("trace said %q, %v", line, err)
	}
	return r
}

// end waits for the command and gives its exit code and what else it said.
func (r *traced) end(t *testing.T) (code int, said string) {
	t.Helper()
	rest, err := io.ReadAll(r.stderr)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait() // the exit code says it
	return r.cmd.ProcessState.ExitCode(), string(rest)
}

// traceEvent is an event of Chrome's trace format. Times are in microseconds.
type traceEvent struct {
	Name     string         `json:"name"`
	Category string         `json:"cat"`
	Phase    string         `json:"ph"`
	Time     *float64       `json:"ts"`
	Duration *float64       `json:"dur"`
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	Args     map[string]any `json:"args"`
}

// events reads the trace and checks that every slice is closed and none overlaps another on its thread.
func (r *traced) events(t *testing.T) (all []traceEvent, threads map[int]string) {
	t.Helper()
	data, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ TraceEvents []traceEvent }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	threads = map[int]string{}
	byThread := map[int][]traceEvent{}
	for _, e := range file.TraceEvents {
		switch e.Phase {
		case "M":
			if e.Name == "thread_name" {
				threads[e.Thread], _ = e.Args["name"].(string)
			}
		case "X":
			if e.Duration == nil || *e.Duration < 0 || e.Time == nil || *e.Time < 0 {
				t.Errorf("a slice without an end: %+v", e)
				continue
			}
			byThread[e.Thread] = append(byThread[e.Thread], e)
		case "B", "E":
			t.Errorf("a slice in two parts: %+v", e)
		}
	}
	for thread, slicesOf := range byThread {
		slices.SortStableFunc(slicesOf, func(a, b traceEvent) int { return int(*a.Time - *b.Time) })
		for i, e := range slicesOf[1:] {
			const rounding = 1e-3 // a nanosecond
			if before := slicesOf[i]; *e.Time+rounding < *before.Time+*before.Duration {
				t.Errorf("on %q %+v begins before %+v ends", threads[thread], e, before)
			}
		}
	}
	return file.TraceEvents, threads
}

// TestTrace: a trace of an image made in a tight budget has a load and a compute of each stage on its
// track, with the job, evictions, and the used bytes below the budget. ctrl-C writes it.
func TestTrace(t *testing.T) {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Seed: ptr(uint64(1)), Steps: ptr(int32(2))}
	largest, _, _ := footprints(t, spec)
	budget := largest * 11 / 10
	s := up(t, "--memory-budget", strconv.FormatInt(budget, 10))
	r := startTrace(t, s)
	jobs := map[any]bool{}
	for range 2 { // what the first did is heard while the second is at work
		events, err := s.generate(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		jobs[events[0].GetAccepted().GetRequestId()] = true
	}
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code, said := r.end(t); code != 0 || !strings.Contains(r.stdout.String(), r.file) {
		t.Fatalf("exit code %d: %s%s", code, r.stdout.String(), said)
	}
	all, threads := r.events(t)
	found := map[string]int{} // slices by category and kind of stage
	var peak float64
	for _, e := range all {
		switch {
		case e.Phase == "X":
			kind, _, _ := strings.Cut(threads[e.Thread], " ")
			category := strings.Replace(e.Category, "prefetch", "load", 1) // either loads
			found[category+" "+kind]++
			if category == "compute" && !jobs[e.Args["job"]] {
				t.Errorf("the jobs are %v: %+v", jobs, e)
			}
		case e.Phase == "C" && e.Name == "used bytes":
			bytes, _ := e.Args["bytes"].(float64)
			peak = max(peak, bytes)
		case e.Phase == "C" && e.Args["bytes"] != float64(budget):
			t.Errorf("the budget is %d: %+v", budget, e)
		}
	}
	for _, kind := range stageNames {
		if found["load "+kind] == 0 || found["compute "+kind] == 0 {
			t.Errorf("loads and computes of the %s: %v", kind, found)
		}
	}
	if found["evict denoiser"] == 0 || peak < float64(largest) || peak > float64(budget) {
		t.Errorf("slices %v, at most %v bytes used of %d, the largest stage takes %d", found, peak, budget, largest)
	}
}

// TestTraceEnds: after the time that was given, and, with an error, when the server stops; both leave
// a file. The server does not wait for those who listen.
func TestTraceEnds(t *testing.T) {
	s := up(t)
	short := startTrace(t, s, "--for", "10ms")
	if code, said := short.end(t); code != 0 {
		t.Errorf("exit code %d: %s", code, said)
	}
	short.events(t)
	long := startTrace(t, s)
	s.stop(t)
	if code, said := long.end(t); code != 1 || !strings.Contains(said, "shutting down") {
		t.Errorf("exit code %d: %s", code, said)
	}
	long.events(t)
	if strings.Contains(s.log.String(), "calls still run") {
		t.Errorf("the server waited:\n%s", s.log)
	}
}

// TestTop: off a terminal, a line for each decision, with its reason.
func TestTop(t *testing.T) {
	s := up(t)
	cmd := command(t, "top", "--server", s.addresses["orchestrator"])
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	made := make(chan error, 1)
	go func() { // until the command listens, which it does not say, what happens is not told
		for {
			select {
			case <-stop:
				made <- nil
				return
			default:
			}
			if _, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(2))}, nil); err != nil {
				made <- err
				return
			}
		}
	}()
	lines := bufio.NewScanner(out)
	found := false
	for !found && lines.Scan() {
		found = strings.Contains(lines.Text(), "grant") && strings.Contains(lines.Text(), "denoiser starter/unet") && strings.Contains(lines.Text(), "works for the request")
	}
	close(stop)
	if err := <-made; err != nil {
		t.Error(err)
	}
	if !found {
		t.Error("no grant was told")
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
