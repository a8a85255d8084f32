package stagerpc

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the google.rpc.ErrorInfo domain of every reason.
const Domain = "diffusion.triptych"

const (
	retryDelay     = time.Second
	incidentKey    = "incident_id"
	maxDetailBytes = 4 << 10 // of a message or a metadata value: proxies bound trailers
)

// codeOf gives the canonical code of a reason; ok is false for a reason nobody has declared.
func codeOf(r stage.Reason) (c codes.Code, ok bool) {
	switch r {
	case stage.InvalidField, stage.SamplerUnsupported, stage.SizeUnsupported, stage.TensorInvalid:
		return codes.InvalidArgument, true
	case stage.ModelNotFound:
		return codes.NotFound, true
	case stage.ModelInvalid, stage.ModelDoesNotFit, stage.StageProtocolUnsupported:
		return codes.FailedPrecondition, true
	case stage.QueueFull, stage.SlowConsumer, stage.DiskFull:
		return codes.ResourceExhausted, true
	case stage.StageUnreachable, stage.StageDraining, stage.RuntimeDied, stage.StageOwned, stage.DeviceBusy, stage.ShuttingDown:
		return codes.Unavailable, true
	case stage.StageEvicted, stage.ModelChanged:
		return codes.Aborted, true
	case stage.ChecksumMismatch:
		return codes.DataLoss, true
	case stage.EngineFault, stage.EngineOOMUnplanned, stage.NotFinite:
		return codes.Internal, true
	}
	return codes.Internal, false
}

// ToStatus makes the status that a caller sees of err, and is the one place that makes any. A
// *stage.Error goes with its reason, message and metadata, a context's error as its code, and
// anything else as EngineFault without a word of its text. Causes do not leave the process: log
// gets them, and for an internal error the incident_id that the caller was given.
func ToStatus(ctx context.Context, log *slog.Logger, err error) error {
	var e *stage.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, context.Canceled.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, context.DeadlineExceeded.Error())
	default:
		e = fault("internal error", err)
	}
	if id := RequestOf(ctx); id != "" {
		log = log.With("request", id)
	}
	code, known := codeOf(e.Reason)
	if !known {
		e = fault("internal error", fmt.Errorf("reason %q is not declared: %w", e.Reason, e))
	}
	attrs := []slog.Attr{slog.String("reason", string(e.Reason))}
	if e.Cause != nil {
		attrs = append(attrs, slog.Any("cause", e.Cause))
	}
	// An error that came over the wire has its incident logged where it happened.
	if code == codes.Internal && e.Metadata[incidentKey] == "" {
		e = e.With(incidentKey, rand.Text())
		log.LogAttrs(ctx, slog.LevelError, e.Message, append(attrs, slog.String(incidentKey, e.Metadata[incidentKey]))...)
	} else if e.Cause != nil {
		log.LogAttrs(ctx, slog.LevelWarn, e.Message, attrs...)
	}
	st, detailsErr := status.New(code, clip(e.Message)).WithDetails(details(code, e)...)
	if detailsErr != nil { // every string is valid and the code is not OK
		panic(detailsErr)
	}
	return st.Err()
}

func fault(message string, cause error) *stage.Error {
	return &stage.Error{Reason: stage.EngineFault, Message: message, Cause: cause}
}

func details(code codes.Code, e *stage.Error) []protoadapt.MessageV1 {
	message := clip(e.Message)
	info := &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: Domain}
	if len(e.Metadata) > 0 {
		info.Metadata = make(map[string]string, len(e.Metadata))
		for k, v := range e.Metadata {
			info.Metadata[clip(k)] = clip(v)
		}
	}
	all := []protoadapt.MessageV1{info}
	if delay := retryAfter(code, e); delay > 0 {
		all = append(all, &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	}
	switch code {
	case codes.InvalidArgument:
		if field := info.Metadata["field"]; field != "" {
			all = append(all, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: field, Description: message, Reason: info.Reason},
			}})
		}
	case codes.FailedPrecondition:
		all = append(all, &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
			{Type: info.Reason, Subject: cmp.Or(info.Metadata["stage"], info.Metadata["model"]), Description: message},
		}})
	}
	return all
}

// retryAfter is when to try again what was refused for now, 0 for what trying again does not help.
func retryAfter(code codes.Code, e *stage.Error) time.Duration {
	switch {
	case e.RetryAfter > 0:
		return e.RetryAfter
	case code == codes.Unavailable, code == codes.Aborted, code == codes.ResourceExhausted && e.Reason != stage.SlowConsumer:
		return retryDelay
	}
	return 0
}

// clip makes s fit a trailer.
func clip(s string) string {
	if len(s) > maxDetailBytes {
		s = s[:maxDetailBytes] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// FromStatus is the inverse of ToStatus, for an error that grpc gave a client of a stage of this
// kind, or of something else if kind is 0. What the peer did not say itself is judged by its code: Unavailable is StageUnreachable,
// Unimplemented is StageProtocolUnsupported, the rest EngineFault; the cause is then grpc's error.
func FromStatus(err error, kind stage.Kind) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	var known *stage.Error
	var delay time.Duration
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain && known == nil {
				known = fromInfo(st.Message(), d)
			}
		case *errdetails.RetryInfo:
			delay = max(0, d.GetRetryDelay().AsDuration())
		}
	}
	if known != nil {
		known.RetryAfter = delay
		return known
	}
	who := "peer"
	if kind != 0 {
		who = kind.String()
	}
	var e *stage.Error
	switch st.Code() {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Unavailable:
		e = &stage.Error{Reason: stage.StageUnreachable, Message: fmt.Sprintf("the %s cannot be reached", who), Cause: err}
	case codes.Unimplemented:
		e = unsupported(fmt.Sprintf("the %s does not know the method", who))
		e.Cause = err
	default:
		e = fault(fmt.Sprintf("the %s answered with the bare code %v", who, st.Code()), err)
	}
	if kind != 0 {
		e = e.With("stage", who)
	}
	return e
}

func fromInfo(message string, info *errdetails.ErrorInfo) *stage.Error {
	e := &stage.Error{Reason: stage.Reason(info.GetReason()), Message: message, Metadata: info.GetMetadata()}
	if _, known := codeOf(e.Reason); !known { // a newer peer's
		e.Reason = stage.EngineFault
		e = e.With("reason", info.GetReason())
	}
	return e
}

// unsupported is a peer that does not speak the protocol.
func unsupported(message string) *stage.Error {
	return (&stage.Error{Reason: stage.StageProtocolUnsupported, Message: message}).With("supported", fmt.Sprint(Protocol))
}
