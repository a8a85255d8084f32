// Package local runs Triptych on one machine: the three services and the orchestrator as processes
// of the same binary, started, restarted and stopped together.
//
// The listeners are opened here and handed down, so that an address is known before its process
// runs, stays while it restarts, and never is another program's.
package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/triptych-serving/triptych/internal/procusage"
	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/stage"
)

// Orchestrator is the name of its process; a stage's is its kind's. Metrics has an address only.
const (
	Orchestrator = "orchestrator"
	Metrics      = "metrics"
)

// Options say what to run.
type Options struct {
	Program string // the triptych binary
	Listen  string // host:port of the orchestrator; port 0 takes a free one
	// MetricsListen is host:port where the orchestrator's metrics are scraped, nowhere if empty.
	MetricsListen string
	// StageArgs and OrchestratorArgs are added to the commands of each service and the orchestrator.
	StageArgs        func(stage.Kind) []string
	OrchestratorArgs []string
	Stderr           io.Writer // gets the processes' logs
	Logger           *slog.Logger
}

// Stack is the running processes.
type Stack struct {
	addresses map[string]string
	processes []*process
	listeners []*net.TCPListener
	failed    chan error
	owner     string // the id of the orchestrator, which its services alone hear, so that they are nobody else's
	probes    sync.WaitGroup
	running   context.Context // ended by Stop
	end       context.CancelFunc
}

// Start opens the listeners and starts the processes. Errors are those of rpcserver.Listen and of
// starting a program. The processes run until Stop.
func Start(o Options) (*Stack, error) {
	s := &Stack{addresses: map[string]string{}, failed: make(chan error, len(stage.Kinds())+1), owner: rand.Text()}
	s.running, s.end = context.WithCancel(context.Background())
	args := append([]string{Orchestrator}, o.OrchestratorArgs...)
	for _, kind := range stage.Kinds() {
		if err := s.add(o, append([]string{kind.String()}, o.StageArgs(kind)...), at{kind.String(), "listen", "127.0.0.1:0"}); err != nil {
			return nil, errors.Join(err, s.Stop())
		}
		args = append(args, "--"+kind.String(), s.Address(kind.String()))
	}
	listen := []at{{Orchestrator, "listen", o.Listen}}
	if o.MetricsListen != "" {
		listen = append(listen, at{Metrics, "metrics-listen", o.MetricsListen})
	}
	if err := s.add(o, args, listen...); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// at is where a process listens: a name for Address, the flag that says where, and host:port.
type at struct{ name, flag, address string }

// Address is where a process listens, and where Metrics are.
func (s *Stack) Address(name string) string { return s.addresses[name] }

// Failed gives a GivenUpError for each process that was given up.
func (s *Stack) Failed() <-chan error { return s.failed }

// AwaitServing returns when every process has answered that it is there, or ctx ends.
func (s *Stack) AwaitServing(ctx context.Context) error {
	for _, p := range s.processes {
		select {
		case <-p.served:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// probe asks a process for its health until the stack stops, tells when it has first answered, whatever it says, and kills it when
// it hangs. Its listener is open from the beginning, so that a call waits for the process that will serve it.
func (s *Stack) probe(p *process, address string) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.log.Error("process cannot be asked how it is", "error", err)
		return
	}
	defer conn.Close() //nolint:errcheck // nothing is under way then
	client := healthpb.NewHealthClient(conn)
	answered, misses := 0, 0 // the pid that has answered, and what it has left unanswered since
	for s.running.Err() == nil {
		pid := p.pid()
		used := procusage.Of(pid)
		ctx, cancel := context.WithTimeout(s.running, answerTimeout)
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		late := ctx.Err() != nil
		cancel()
		switch {
		case err == nil:
			if !p.hasServed() {
				close(p.served)
			}
			answered, misses = pid, 0
		case late && pid == answered && used != "" && used == procusage.Of(pid):
			misses++
		default:
			misses = 0
		}
		if misses == maxMisses && s.running.Err() == nil {
			p.log.Error("process hangs, killing it", "pid", pid, "silent", maxMisses*answerTimeout)
			p.kill(pid)
		}
		select {
		case <-s.running.Done():
		case <-time.After(askInterval):
		}
	}
}

// add opens listeners and starts the process that serves on them.
func (s *Stack) add(o Options, args []string, listen ...at) (err error) {
	p := &process{
		name: args[0], program: o.Program, args: args, stderr: &words{to: o.Stderr}, log: o.Logger.With("process", args[0]),
		owner: s.owner, served: make(chan struct{}), stopping: make(chan struct{}), done: make(chan struct{}), failed: s.failed,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.closeListeners())
		}
	}()
	for i, l := range listen {
		file, err := s.listen(l)
		if err != nil {
			return err
		}
		p.listeners = append(p.listeners, file)
		p.args = append(p.args, "--"+l.flag+"-fd", fmt.Sprint(firstFile+i))
	}
	if err := p.start(); err != nil {
		return err
	}
	s.processes = append(s.processes, p)
	go p.supervise()
	address := s.Address(p.name)
	s.probes.Go(func() { s.probe(p, address) })
	return nil
}

// listen opens a listener, which stays open until Stop, and gives its file.
func (s *Stack) listen(l at) (*os.File, error) {
	lis, err := rpcserver.Listen(l.address)
	if err != nil {
		return nil, err
	}
	tcp, ok := lis.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("local: %s is not a TCP address", l.address), lis.Close())
	}
	s.listeners = append(s.listeners, tcp)
	s.addresses[l.name] = tcp.Addr().String()
	return tcp.File()
}

// Stop ends the processes, the orchestrator first, and returns when none is left. Idempotent.
func (s *Stack) Stop() error {
	var err error
	s.end()
	s.probes.Wait()
	for i := len(s.processes) - 1; i >= 0; i-- {
		err = errors.Join(err, s.processes[i].stop())
	}
	for _, l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	s.processes, s.listeners = nil, nil
	return err
}
