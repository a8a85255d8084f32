//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

var soakTime = flag.Duration("soak", 0, "how long TestSoak goes on; 0 for some jobs")

// What the soak does beside jobs: a runtime, or one time in killService its service, is killed for one job in killEvery, or, a
// runtime one time in stopRuntime, stopped for good,
// a job is cancelled one time in cancelEvery, and allocations of the runtimes fail.
const (
	soakJobs    = 30
	soakClients = 3
	killEvery   = 8
	killService = 4
	stopRuntime = 2
	cancelEvery = 6
	// soakPatience ends a job that hangs: three at once, each tried again many times, take what they take.
	soakPatience = 10 * time.Minute
	soakWarm     = "8MiB" // some evicted weights stay, others do not
	soakFromWarm = "resident again from there"
	soakFaults   = "encoder every 11; denoiser every 9; decoder every 13"
)

// soakModels are models of three sizes.
var soakModels = []string{"--models", "models/starter", "--models", "testdata/golden/tiny-v", "--models", "testdata/golden/tiny-sd15"}

func soakSpecs() []*triptychv1alpha1.GenerationSpec {
	type spec = triptychv1alpha1.GenerationSpec
	return []*spec{
		{Model: "starter", Prompt: "fox", Seed: ptr(uint64(1)), Steps: ptr(int32(3)), Sampler: "euler_a"},
		{Model: "starter", Prompt: "owl on a red background", Seed: ptr(uint64(2)), Steps: ptr(int32(7)), Sampler: "ddim", ImageCount: ptr(int32(2))},
		{Model: "starter", Prompt: "pizza", Seed: ptr(uint64(3)), Steps: ptr(int32(2)), GuidanceScale: ptr(float32(1)), WidthPx: ptr(int32(96))},
		{Model: "tiny-v", Prompt: "cat", Seed: ptr(uint64(4)), Steps: ptr(int32(6)), Sampler: "dpmpp_2m"},
		{Model: "tiny-v", Prompt: "cat", Seed: ptr(uint64(5)), Steps: ptr(int32(9)), Preview: &triptychv1alpha1.PreviewOptions{EveryNSteps: 2}},
		{Model: "tiny-sd15", Prompt: "rocket", Seed: ptr(uint64(6)), Steps: ptr(int32(5)), ImageCount: ptr(int32(3)), Sampler: "euler"},
	}
}

// soak is a run of it.
type soak struct {
	t      *testing.T
	s      *server
	specs  []*triptychv1alpha1.GenerationSpec
	want   [][][]byte // images of each spec
	budget int64

	mu     sync.Mutex
	counts map[string]int
}

func (k *soak) count(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts[what]++
}

// TestSoak runs jobs of several models in a tight budget while runtimes and services are killed, callers give up and
// allocations fail. Every job ends well, with the bytes of a quiet run, or with a typed error; in the end nothing
// is reserved but the weights that are there, and nothing is left of anybody: no byte, no goroutine, no process.
// What happens to which job depends on its number alone.
func TestSoak(t *testing.T) {
	k := &soak{t: t, specs: soakSpecs(), counts: map[string]int{}}
	k.s = up(t, soakModels...)
	var largest int64
	for _, spec := range k.specs {
		events, err := k.s.generate(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		k.want = append(k.want, images(t, events))
		for _, u := range events[len(events)-1].GetCompleted().GetStages() {
			largest = max(largest, u.GetWeightsBytes()+u.GetScratchBytes())
		}
	}
	quiet := k.s.goroutines(t)

	t.Setenv(faults, soakFaults)
	k.budget = largest * 12 / 10
	k.s = up(t, append(soakModels, "--memory-budget", strconv.FormatInt(k.budget, 10), "--warm-memory", soakWarm)...)
	begin := time.Now()
	watching, stop := context.WithCancel(t.Context())
	defer stop()
	watched := make(chan int64)
	go func() { watched <- k.watch(watching) }()
	next, jobs := make(chan int), sync.WaitGroup{}
	for range soakClients {
		jobs.Go(func() {
			for n := range next {
				k.job(n)
			}
		})
	}
	for n := 0; *soakTime > 0 && time.Since(begin) < *soakTime || *soakTime == 0 && n < soakJobs; n++ {
		next <- n
	}
	close(next)
	jobs.Wait()
	took := time.Since(begin)
	for i, spec := range k.specs { // all stages are well
		events, err := k.s.generate(t.Context(), spec, nil)
		if err != nil {
			t.Fatalf("a job after all: %v", err)
		}
		same(t, k.want[i], images(t, events))
	}
	k.settled()
	stop()
	peak := <-watched
	loud := k.s.goroutines(t)
	t.Logf("%v, budget %d, peak %d, goroutines %d after a quiet run and %d in the end: %v", took.Round(time.Second), k.budget, peak, quiet, loud, k.counts)
	if peak == 0 || peak > k.budget {
		t.Errorf("at most %d bytes were reserved of %d", peak, k.budget)
	}
	if loud > quiet+10 { // connections come and go
		t.Errorf("%d goroutines in the end, %d after a quiet run:\n%s", loud, quiet, k.s.log)
	}
	for _, what := range []string{"completed", "cancelled", syscall.SIGKILL.String(), syscall.SIGSTOP.String(), pipelineOutOfMemory, soakFromWarm} {
		if k.counts[what] == 0 {
			t.Errorf("nothing was %s: %v", what, k.counts)
		}
	}
}

// pipelineOutOfMemory is the code of the warning that work which ran out of memory is tried once more.
const pipelineOutOfMemory = "OUT_OF_MEMORY"

// job is the n-th.
func (k *soak) job(n int) {
	random := rand.New(rand.NewPCG(7, uint64(n)))
	which := random.IntN(len(k.specs))
	late, end := context.WithTimeout(k.t.Context(), soakPatience)
	defer end()
	ctx, cancel := context.WithCancel(late)
	defer cancel()
	var killAt, cancelAt, seen int // the event at which it happens
	if n%killEvery == killEvery/2 {
		killAt = 1 + random.IntN(12)
	}
	if random.IntN(cancelEvery) == 0 {
		cancelAt = 1 + random.IntN(20)
	}
	victim, signal := stageNames[random.IntN(3)], syscall.SIGKILL
	if random.IntN(killService) > 0 {
		victim = "runtime " + victim
		if random.IntN(stopRuntime) == 0 {
			signal = syscall.SIGSTOP
		}
	}
	events, err := k.s.generateFor(ctx, k.specs[which], func(e *triptychv1alpha1.GenerateResponse) {
		if w := e.GetWarning(); w != nil {
			k.count(w.GetCode())
		}
		switch seen++; seen {
		case killAt:
			k.signal(victim, signal)
		case cancelAt:
			cancel()
		}
	})
	info := errorInfo(err)
	switch {
	case err == nil:
		k.count("completed")
		got := images(k.t, events)
		if !slices.EqualFunc(got, k.want[which], bytes.Equal) {
			k.t.Errorf("job %d of %v made other images than a quiet run", n, k.specs[which])
		}
	case ctx.Err() != nil && status.Code(err) == codes.Canceled:
		k.count("cancelled")
	case slices.Contains([]string{"RUNTIME_DIED", "STAGE_UNREACHABLE"}, info.GetReason()):
		k.count(info.GetReason())
	case slices.Contains([]string{"MODEL_DOES_NOT_FIT", "ENGINE_OOM_UNPLANNED"}, info.GetReason()):
		k.count(info.GetReason())
		if info.GetMetadata()["needed_bytes"] == "" || info.GetMetadata()["available_bytes"] == "" {
			k.t.Errorf("job %d has no numbers: %v", n, info)
		}
	default:
		k.t.Errorf("job %d of %v ended with %v, %v", n, k.specs[which], err, info)
	}
}

// signal kills or stops a process of the stack, unless it is being started again.
func (k *soak) signal(name string, signal syscall.Signal) {
	for pid, args := range descendants(k.t, k.s.cmd.Process.Pid) {
		if strings.Contains(args, program+" "+name) && syscall.Kill(pid, signal) == nil {
			k.count(signal.String())
			return
		}
	}
}

// residency opens the stream of decisions; it is heard from the snapshot on that is returned.
func (k *soak) residency(ctx context.Context) (grpc.ServerStreamingClient[triptychv1alpha1.WatchResidencyResponse], *triptychv1alpha1.ResidencySnapshot) {
	stream, err := triptychv1alpha1.NewResidencyServiceClient(k.s.conn).WatchResidency(ctx, &triptychv1alpha1.WatchResidencyRequest{})
	if err == nil {
		var news *triptychv1alpha1.WatchResidencyResponse
		if news, err = stream.Recv(); err == nil {
			return stream, news.GetSnapshot()
		}
	}
	k.t.Errorf("watching: %v", err)
	return nil, nil
}

// watch holds every decision to the budget until ctx ends, and gives the most bytes reserved.
func (k *soak) watch(ctx context.Context) (peak int64) {
	stream, _ := k.residency(ctx)
	for stream != nil {
		news, err := stream.Recv()
		if err != nil {
			if ctx.Err() == nil {
				k.t.Errorf("watching: %v", err)
			}
			break
		}
		e := news.GetDecision().GetEvent()
		peak = max(peak, e.GetUsedBytes())
		if e.GetUsedBytes() > k.budget {
			k.t.Errorf("%d bytes are reserved of %d: %v", e.GetUsedBytes(), k.budget, e)
		}
		switch e.GetClass() {
		case triptychv1alpha1.ResidencyEvent_CLASS_FROM_WARM:
			k.count(soakFromWarm)
		case triptychv1alpha1.ResidencyEvent_CLASS_FOUND:
			k.t.Errorf("weights were held that nobody knew of: %v", e)
		}
		if e != nil && e.GetReason() == "" {
			k.t.Errorf("no reason: %v", e)
		}
	}
	return peak
}

// settled waits until nothing is under way, and holds the ledger to what the runtimes have allocated: what is resident.
func (k *soak) settled() {
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	var snapshot *triptychv1alpha1.ResidencySnapshot
	for busy := true; busy; {
		stream, now := k.residency(ctx)
		if stream == nil {
			return
		}
		busy = len(now.GetWaiting()) > 0
		for _, s := range now.GetServices() {
			busy = busy || s.GetRequest() != 0
		}
		for _, c := range now.GetComponents() {
			busy = busy || c.GetState() != triptychv1alpha1.ComponentUse_STATE_RESIDENT && c.GetState() != triptychv1alpha1.ComponentUse_STATE_WARM
		}
		if busy {
			if _, err := stream.Recv(); err != nil {
				k.t.Fatalf("it does not settle: %v, %v", err, now)
			}
		}
		snapshot = now
	}
	held, warm := map[string]int64{}, map[string]int64{} // by service
	var sum, kept int64
	for _, c := range snapshot.GetComponents() {
		held[c.GetService()] += c.GetWeightsBytes()
		warm[c.GetService()] += c.GetWarmBytes()
		sum, kept = sum+c.GetWeightsBytes(), kept+c.GetWarmBytes()
	}
	if h := snapshot.GetHosts(); len(h) != 1 || h[0].GetUsedBytes() != kept || kept > h[0].GetBudgetBytes() {
		k.t.Errorf("%d bytes are warm: %v", kept, h)
	}
	if used := snapshot.GetDevices()[0].GetUsedBytes(); used != sum || len(snapshot.GetDevices()) != 1 {
		k.t.Errorf("%d bytes are reserved, the resident weights are %d: %v", used, sum, snapshot)
	}
	for _, kind := range stageNames {
		address := k.s.addresses[kind]
		conn, err := grpc.NewClient(address, append(stagerpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			k.t.Fatal(err)
		}
		defer conn.Close()
		of, _ := stage.ParseKind(kind)
		info, err := stagerpc.New(conn, of).Info(ctx)
		if err != nil || info.UsedBytes != held[address] {
			k.t.Errorf("the %s has allocated %d bytes, reserved are %d: %v", kind, info.UsedBytes, held[address], err)
		}
		for _, m := range info.Warm {
			warm[address] -= m.WeightsBytes
		}
		if warm[address] != 0 {
			k.t.Errorf("of the %s %d more bytes are counted warm than it keeps: %v", kind, warm[address], info.Warm)
		}
	}
}

// dumped is the head of a goroutine that is not the runtime's own.
var dumped = regexp.MustCompile(`(?m)^goroutine \d+ .*\[(chan|select|IO|sync|sleep|syscall|running|runnable|semacquire)`)

// widen makes room for a whole dump in the pipe that a process logs to, which nobody reads while its parent is stopped.
func widen(t *testing.T, pid int) {
	t.Helper()
	pipe, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/2", pid), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if _, err := unix.FcntlInt(pipe.Fd(), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		t.Fatal(err)
	}
}

// goroutines tells how many goroutines the server's four processes have, as they dump them when they are told to
// quit. That is its end; nothing may be left afterwards.
func (s *server) goroutines(t *testing.T) int {
	t.Helper()
	_ = s.conn.Close()
	family, ends := descendants(t, s.cmd.Process.Pid), map[int]int{}
	for pid := range family {
		fd, err := unix.PidfdOpen(pid, 0) // readable when the process has ended, whoever's child it is
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		ends[pid] = fd
	}
	signal := func(pid int, signal syscall.Signal) {
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
	}
	ended := func(pid int) {
		wait := []unix.PollFd{{Fd: int32(ends[pid]), Events: unix.POLLIN}}
		n, err := unix.Poll(wait, int(patience.Milliseconds()))
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(wait, int(patience.Milliseconds()))
		}
		if n != 1 {
			t.Errorf("process %d is left: %s (%v)", pid, family[pid], err)
		}
	}
	signal(s.cmd.Process.Pid, syscall.SIGSTOP) // it would stop the others when the first quits
	var quit []int
	for pid, args := range family {
		for _, name := range append([]string{"orchestrator"}, stageNames...) {
			if strings.HasPrefix(args, program+" "+name+" ") {
				signal(pid, syscall.SIGSTOP) // nor may one answer to the end of another
				widen(t, pid)
				quit = append(quit, pid)
			}
		}
	}
	if len(quit) != 4 {
		t.Errorf("%d processes were told to quit: %v", len(quit), family)
	}
	for _, pid := range quit { // one by one: dumps at once are written into each other
		signal(pid, syscall.SIGQUIT)
		signal(pid, syscall.SIGCONT)
		ended(pid)
	}
	signal(s.cmd.Process.Pid, syscall.SIGTERM) // before it sees that they quit, or it would start them again
	signal(s.cmd.Process.Pid, syscall.SIGCONT)
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("up: %v", err)
	}
	for pid := range family {
		ended(pid)
	}
	return len(dumped.FindAll(s.log.Bytes(), -1))
}
