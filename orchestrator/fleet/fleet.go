// Package fleet is the stage services an orchestrator was told of: it dials them, watches them, and
// tells the keeper who is there and who is gone.
//
// The package may import stage, stage/stagerpc, orchestrator/residency and grpc.
package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// Options says which services there are and how to reach them.
type Options struct {
	// ID is the orchestrator's: its services belong to it. Empty makes one up. Of two with the same id, each would take the
	// other for itself.
	ID        string
	Addresses map[stage.Kind][]string
	Dial      []grpc.DialOption // transport credentials and the like
	// Undrain has services that drain take work again, unless they shut down.
	Undrain bool
	// Diagnose tells in words why the service at an address cannot be reached, "" if it finds nothing; nil is not asked.
	Diagnose func(ctx context.Context, address string) string
	Keeper   *residency.Keeper
	Logger   *slog.Logger
}

// Fleet is the services. Safe for concurrent use.
type Fleet struct {
	keeper   *residency.Keeper
	log      *slog.Logger
	undrain  bool
	diagnose func(context.Context, string) string
	members  map[residency.StageID]*member
	plans    plans

	standings standings

	mu      sync.Mutex
	changed chan struct{}               // closed and renewed whenever a member has been looked at
	claims  map[residency.StageID]claim // of the members that get work
}

// How often a service is asked how it is, and how long an answer may take: longer than a service waits for
// its runtime, so that it can tell that there is none. A failing call reports the service at once (see Report),
// so the interval bounds only how late an idle death is noticed.
const (
	watchInterval = time.Second
	retryInterval = 100 * time.Millisecond
	infoTimeout   = 6 * time.Second
)

// New dials every service. Run must be called for anybody to be found.
func New(o Options) (*Fleet, error) {
	f := &Fleet{keeper: o.Keeper, log: o.Logger, undrain: o.Undrain, diagnose: o.Diagnose, members: map[residency.StageID]*member{}, changed: make(chan struct{}), claims: map[residency.StageID]claim{}}
	f.standings = standings{rank: stage.NewRank(time.Now()), log: o.Logger, seen: map[*member]tenure{}}
	if o.ID == "" {
		o.ID = rand.Text()
	}
	options := append(stagerpc.DialOptions(), o.Dial...)
	options = append(options, grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: retryInterval, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: infoTimeout,
	}))
	for _, kind := range stage.Kinds() {
		for _, address := range o.Addresses[kind] {
			id := residency.StageID(address)
			if _, ok := f.members[id]; ok {
				return nil, errors.Join(errors.New("fleet: the address "+address+" is given twice"), f.Close())
			}
			ear := newEar()
			conn, err := grpc.NewClient(address, append(options, grpc.WithStatsHandler(ear))...)
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			f.members[id] = newMember(id, kind, conn, ear, o.ID, f.standings.rank)
		}
	}
	return f, nil
}

// Run watches the services until ctx ends.
func (f *Fleet) Run(ctx context.Context) {
	f.standings.watch(ctx)
	var wg sync.WaitGroup
	for _, m := range f.members {
		wg.Go(func() { f.watch(ctx, m) })
	}
	wg.Wait()
}

// leaveTimeout is how long a service may take to hear that the orchestrator goes away; else it finds out by the silence.
const leaveTimeout = time.Second

// Leave gives the services back that answer, so that another orchestrator need not wait for this one's silence. It is called
// behind Run and behind the keeper's end.
func (f *Fleet) Leave() {
	var wg sync.WaitGroup
	for _, m := range f.members {
		if m.known() {
			wg.Go(func() { f.giveBack(context.Background(), m) })
		}
	}
	wg.Wait()
}

// Close closes the connections.
func (f *Fleet) Close() error {
	var err error
	for _, m := range f.members {
		err = errors.Join(err, m.conn.Close())
	}
	return err
}

// Stage gives the service that a lease was granted on.
func (f *Fleet) Stage(id residency.StageID) stage.Stage { return f.members[id].stage }

// Report tells that a service could not be reached, or is not what the keeper takes it for. It gets no
// new work, and what it holds counts, until it has been asked anew what that is or turns out to be gone.
func (f *Fleet) Report(id residency.StageID) {
	m := f.members[id]
	m.mu.Lock()
	f.silence(m)
	m.doubted = m.joined
	f.notify()
	m.mu.Unlock()
	m.ask()
}

// Ask has a service asked at once how it is.
func (f *Fleet) Ask(id residency.StageID) { f.members[id].ask() }

// notify wakes everybody who waits for news.
func (f *Fleet) notify() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
}

// next is closed at the next news.
func (f *Fleet) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}
