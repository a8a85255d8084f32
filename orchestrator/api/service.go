// Package api is the public services of Triptych: validation, admission and event streams around
// the pipeline.
//
// The package may import the orchestrator's other packages, stage, stage/stagerpc, proto and grpc.
package api

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/scale"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// Options is what the services are made of.
type Options struct {
	Pipeline *pipeline.Pipeline
	Logger   *slog.Logger
	// MaxJobs is how many requests may be at work or wait at once.
	MaxJobs int
	// SendTimeout is how long a caller may take to read a message, of at most 1 MiB, while images wait for him.
	SendTimeout time.Duration
	// Ended, if not nil, hears of the end of every call of Generate. It may be called at once.
	Ended func(End)
	// Changed, if not nil, is called whenever Unplanned may be another than before. It must not wait.
	Changed func()
}

// End is what became of a call of Generate.
type End struct {
	Model  string // that it used, empty if it was refused before
	Images int    // that were made
	Took   time.Duration
	Err    error // nil if it completed
}

// Service implements GenerationService, ModelService and ResidencyService.
type Service struct {
	triptychv1alpha1.UnimplementedGenerationServiceServer
	triptychv1alpha1.UnimplementedModelServiceServer
	triptychv1alpha1.UnimplementedResidencyServiceServer
	Options
	places  chan struct{} // one for each job
	pace    pace          // of those who hold them
	watches *watches
	limits  limits // of each request's queue
	jobs    *jobs
	drain   *drain

	unplanned *unplanned
}

// New makes the services.
func New(o Options) *Service {
	return &Service{Options: o, places: make(chan struct{}, o.MaxJobs), watches: newWatches(maxWatches, maxPeerWatches), limits: defaultLimits, jobs: newJobs(), drain: newDrain(), unplanned: newUnplanned(o.Changed)}
}

// Unplanned lists the requests that the keeper has not heard of.
func (s *Service) Unplanned() []scale.Unplanned { return s.unplanned.list() }

// Register adds the services to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	triptychv1alpha1.RegisterGenerationServiceServer(r, s)
	triptychv1alpha1.RegisterModelServiceServer(r, s)
	triptychv1alpha1.RegisterResidencyServiceServer(r, s)
}

// Generate implements GenerationService.
func (s *Service) Generate(req *triptychv1alpha1.GenerateRequest, stream grpc.ServerStreamingServer[triptychv1alpha1.GenerateResponse]) error {
	begun, id := time.Now(), uuid.NewString()
	named := stage.WithCaller(stream.Context(), stage.Caller{Request: id})
	ctx, cancel := beforeDeadline(named)
	defer cancel()
	ctx, done := s.Pipeline.Fleet.Owning(ctx)
	defer done()
	end := End{Err: ctx.Err()}
	if end.Err == nil {
		end.Err = s.generate(ctx, id, req.GetSpec(), &end, func(m *triptychv1alpha1.GenerateResponse) error {
			return unsent(stream.Context(), stream.Send(m))
		})
	}
	if owned := context.Cause(ctx); end.Err != nil && stage.ReasonOf(owned) == stage.StageOwned {
		end.Err = owned
	}
	if s.Ended != nil {
		end.Took = time.Since(begun)
		s.Ended(end)
	}
	return stagerpc.ToStatus(named, s.Logger, end.Err)
}

// unsent is what a failed Send means: that the caller is gone, or else what went wrong here.
func unsent(ctx context.Context, err error) error {
	switch code := status.Code(err); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case code == codes.Canceled, code == codes.Unavailable:
		return context.Canceled
	}
	return err
}

// beforeDeadline ends ctx a little before its deadline: a caller stops listening at the deadline and
// would never hear which stage it waited for.
func beforeDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, maxMargin)))
}

// maxMargin is the most time given up for an answer to travel.
const maxMargin = 500 * time.Millisecond

// generate makes the images of the request id, and notes in end what becomes of it but the error.
func (s *Service) generate(ctx context.Context, id string, asked *triptychv1alpha1.GenerationSpec, end *End, send func(*triptychv1alpha1.GenerateResponse) error) (err error) {
	ctx, leave, err := s.drain.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	defer func() { err = s.drain.told(ctx, err) }()
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		return full(s.pace.next(cap(s.places)), "%s at work or waiting, try again later", stage.Count(cap(s.places), "request"))
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(context.Canceled)
	q := newQueue(s.limits, s.SendTimeout, cancel)
	defer q.abandon() // what is in Send then, because the caller does not read, ends with the call
	sent := make(chan error, 1)
	go func() {
		err := q.drain(send)
		if err != nil {
			cancel(err) // nobody hears what the job would still do
		}
		sent <- err
	}()
	log := s.Logger.With("request", id)
	summary, err := s.perform(work, id, asked, end, log, q)
	patience := s.SendTimeout
	switch tooSlow := context.Cause(work); {
	case err == nil:
		log.Info("completed", "total", summary.Total, "peak_bytes", summary.PeakBytes)
		q.pushAlways(&triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_Completed{Completed: completed(summary)}})
	case stage.ReasonOf(tooSlow) != "":
		err, patience = tooSlow, 0
	}
	if err != nil && end.Model != "" {
		log.Warn("failed", "reason", string(stage.ReasonOf(err)), "error", err)
	}
	q.close()
	for {
		taken := q.next()
		select {
		case sendErr := <-sent:
			if sendErr != nil {
				err = sendErr
			}
			return err
		case <-taken: // a reader who is slow, but reads
			continue
		case <-time.After(patience):
			if err == nil {
				err = slowConsumer("the last events of the request were not read in time")
			}
			return err
		}
	}
}

// perform checks a request, accepts it and runs it. It is accepted when it is planned, or earlier when that has to wait for a stage; while
// the model cannot be known for want of one it is only told that it waits.
func (s *Service) perform(ctx context.Context, id string, asked *triptychv1alpha1.GenerationSpec, end *End, log *slog.Logger, q *queue) (pipeline.Summary, error) {
	known := s.unplanned.begin(id, asked.GetModel())
	defer known()
	waiting := func(e pipeline.Queued) { emit(ctx, q, e) }
	r, err := s.resolve(ctx, asked, waiting)
	if err != nil {
		return pipeline.Summary{}, err
	}
	spec := r.job.Spec
	s.unplanned.outline(id, spec.Model, s.Pipeline.Outline(r.model, spec))
	var accepted time.Time
	accept := sync.OnceFunc(func() {
		accepted, end.Model = time.Now(), spec.Model
		log.Info("accepted", settings(spec)...)
		q.pushAlways(&triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_Accepted{
			Accepted: &triptychv1alpha1.Accepted{RequestId: id, Spec: specProto(spec)},
		}})
		s.jobs.begin(id, spec)
	})
	defer s.jobs.end(id)
	plan, err := s.Pipeline.Plan(ctx, r.model, spec, func(e pipeline.Queued) {
		accept()
		waiting(e)
	})
	if err != nil {
		return pipeline.Summary{}, atField(spec.Recipe, err)
	}
	accept()
	begun := time.Now()
	defer func() { s.pace.spent(time.Since(begun)) }()
	var images atomic.Int64
	defer func() { end.Images = int(images.Load()) }()
	summary, err := s.Pipeline.Run(ctx, residency.JobID(id), r.job, plan, func(e pipeline.Event) {
		known() // whoever has something to tell has announced its turns
		s.jobs.hear(id, e)
		if i, ok := e.(pipeline.Image); ok && i.Last() {
			images.Add(1)
		}
		emit(ctx, q, e)
	})
	summary.Total = time.Since(accepted) // also what planning had to wait for
	return summary, err
}

// ListModels implements ModelService.
func (s *Service) ListModels(context.Context, *triptychv1alpha1.ListModelsRequest) (*triptychv1alpha1.ListModelsResponse, error) {
	out := &triptychv1alpha1.ListModelsResponse{}
	for _, m := range s.Pipeline.Fleet.Models() {
		out.Models = append(out.Models, ModelProto(m))
	}
	for _, f := range s.Pipeline.Fleet.Services() {
		out.Services = append(out.Services, &triptychv1alpha1.StageService{Stage: f.Kind.String(), Address: f.Address, Problem: f.Problem})
	}
	return out, nil
}

// settings are what the log tells of a request: no text that a caller made up.
func settings(s pipeline.Spec) []any {
	out := []any{"model", s.Model, "task", s.Recipe.Task, "seed", s.Seed, "images", s.ImageCount}
	for _, o := range s.Recipe.Options {
		if v, ok := s.Options[o.Name]; ok && (o.Type != stage.Text || len(o.Choices) > 0) {
			out = append(out, o.Name, v.String())
		}
	}
	return out
}
