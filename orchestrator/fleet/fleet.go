// Package fleet is the stage services an orchestrator was told of: it looks up their names, dials them, watches them, and
// tells the keeper who is there and who is gone.
//
// The package may import stage, stage/stagerpc, orchestrator/residency, net and grpc.
package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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
	ID string
	// Addresses are services, or names such as dns:///triptych-denoiser:7422 that stand for every address behind them, each of
	// which is a service. Who is given by its own address is never forgotten.
	Addresses map[stage.Kind][]string
	Resolver  Resolver          // of names that do not say which DNS server to ask; nil is the system's
	Dial      []grpc.DialOption // transport credentials and the like
	// Undrain has services that drain take work again, unless they shut down.
	Undrain bool
	// Diagnose tells in words why the service at an address, with a certificate for a host, cannot be reached, "" if it finds
	// nothing; nil is not asked. No host is that of the address.
	Diagnose func(ctx context.Context, address, host string) string
	Keeper   *residency.Keeper
	Logger   *slog.Logger
}

// Fleet is the services. Safe for concurrent use.
type Fleet struct {
	id       string
	keeper   *residency.Keeper
	log      *slog.Logger
	dialling []grpc.DialOption
	undrain  bool
	diagnose func(ctx context.Context, address, host string) string
	names    []*name // as they were given
	plans    plans
	watching sync.WaitGroup // of members and names, while Run runs

	standings standings
	draining  atomic.Bool

	mu      sync.Mutex
	members map[residency.StageID]*member
	ordered []*member                    // by id, nil when members have changed; it is exchanged, never changed
	changed chan struct{}                // closed and renewed whenever a member has been looked at, and when a name has others behind it
	claims  map[residency.StageID]claim  // of the members that get work
	reached map[residency.StageID]string // the instances of services, at the addresses where they count
}

// How often a service is asked how it is, and how long an answer may take: longer than a service waits for
// its runtime, so that it can tell that there is none. A failing call reports the service at once (see Report),
// so the interval bounds only how late an idle death is noticed.
const (
	watchInterval = time.Second
	retryInterval = 100 * time.Millisecond
	infoTimeout   = 6 * time.Second
)

// New dials every service that is given by its address. Run must be called for anybody to be found.
func New(o Options) (*Fleet, error) {
	f := &Fleet{
		id: o.ID, keeper: o.Keeper, log: o.Logger, undrain: o.Undrain, diagnose: o.Diagnose,
		members: map[residency.StageID]*member{}, changed: make(chan struct{}), claims: map[residency.StageID]claim{}, reached: map[residency.StageID]string{},
		standings: standings{rank: stage.NewRank(time.Now()), log: o.Logger, seen: map[*member]tenure{}},
	}
	if f.id == "" {
		f.id = rand.Text()
	}
	f.dialling = slices.Concat(stagerpc.DialOptions(), o.Dial, []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: retryInterval, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: infoTimeout,
	})})
	given := map[string]bool{}
	for _, kind := range stage.Kinds() {
		for _, address := range o.Addresses[kind] {
			t, named, err := parse(address)
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			key := address
			if named {
				key = t.server + "/" + t.String()
				f.names = append(f.names, &name{target: t, kind: kind, resolver: t.resolver(o.Resolver), problem: fmt.Sprintf("the addresses behind %v are not known yet", t)})
			}
			if given[key] {
				return nil, errors.Join(errors.New("fleet: the address "+address+" is given twice"), f.Close())
			}
			given[key] = true
			if named {
				continue
			}
			m, err := f.dial(residency.StageID(address), kind, "")
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			m.given = true
			f.members[m.id] = m
		}
	}
	return f, nil
}

// dial makes a member; host is the one that its certificate is for, empty for that of its address.
func (f *Fleet) dial(id residency.StageID, kind stage.Kind, host string) (*member, error) {
	ear := newEar()
	options := append(slices.Clone(f.dialling), grpc.WithStatsHandler(ear))
	if host != "" {
		options = append(options, grpc.WithAuthority(host))
	}
	conn, err := grpc.NewClient(string(id), options...)
	if err != nil {
		return nil, err
	}
	return newMember(id, kind, newLink(conn), ear, f.id, f.standings.rank, host), nil
}

// Run watches the services, and looks up names, until ctx ends.
func (f *Fleet) Run(ctx context.Context) {
	f.standings.watch(ctx)
	for _, m := range f.all() {
		f.watching.Go(func() { f.watch(ctx, m) })
	}
	for _, n := range f.names {
		f.watching.Go(func() { f.lookUp(ctx, n) })
	}
	f.watching.Wait()
}

// all is every member, by id.
func (f *Fleet) all() []*member {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ordered == nil {
		f.ordered = slices.SortedFunc(maps.Values(f.members), func(a, b *member) int { return cmp.Compare(a.id, b.id) })
	}
	return f.ordered
}

// member is the one of an id, nil if it was forgotten.
func (f *Fleet) member(id residency.StageID) *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members[id]
}

// leaveTimeout is how long a service may take to hear that the orchestrator goes away; else it finds out by the silence.
const leaveTimeout = time.Second

// Leave gives the services back that answer, so that another orchestrator need not wait for this one's silence. It is called
// behind Run and behind the keeper's end.
func (f *Fleet) Leave() {
	var wg sync.WaitGroup
	for _, m := range f.all() {
		if m.known() {
			wg.Go(func() { f.giveBack(context.Background(), m) })
		}
	}
	wg.Wait()
}

// Close closes the connections.
func (f *Fleet) Close() error {
	var err error
	for _, m := range f.all() {
		err = errors.Join(err, m.conn.Close())
	}
	return err
}

// Stage gives the service that a lease was granted on. One that was forgotten meanwhile cannot be reached.
func (f *Fleet) Stage(id residency.StageID) stage.Stage {
	if m := f.member(id); m != nil {
		return m.stage
	}
	return stagerpc.New(gone(), 0)
}

// Report tells that a service could not be reached, or is not what the keeper takes it for. It gets no
// new work, and what it holds counts, until it has been asked anew what that is or turns out to be gone.
func (f *Fleet) Report(id residency.StageID) {
	m := f.member(id)
	if m == nil {
		return
	}
	m.mu.Lock()
	f.silence(m)
	m.doubted = m.joined
	f.notify()
	m.mu.Unlock()
	m.ask()
}

// Ask has a service asked at once how it is.
func (f *Fleet) Ask(id residency.StageID) {
	if m := f.member(id); m != nil {
		m.ask()
	}
}

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
