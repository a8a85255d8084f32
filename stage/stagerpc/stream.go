package stagerpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// An inbox is the receiving half of a stream. recv gives io.EOF at the end and otherwise errors
// that a stage may give.
type inbox[M any] struct {
	recv       func() (*M, error)
	unexpected func(expected, got string) error
}

// An outbox is the sending half of a stream; its errors are those that a stage may give.
type outbox[M any] func(*M) error

// Either half of a generated stream.
type (
	receiving[M any] interface {
		Recv() (*M, error)
		Context() context.Context
	}
	sending[M any] interface {
		Send(*M) error
		Context() context.Context
	}
)

func serverInbox[M any](s receiving[M]) inbox[M] {
	return inbox[M]{
		recv: func() (*M, error) {
			m, err := s.Recv()
			if err == nil || errors.Is(err, io.EOF) {
				return m, err
			}
			if gone := callerGone(s.Context(), err); gone != nil {
				return nil, gone
			}
			// A message too large or unreadable; grpc has answered it already, with a bare code.
			return nil, stage.Invalid(stage.InvalidField, "payload", status.Code(err), fmt.Sprintf("messages of at most %d bytes", MaxMessageBytes))
		},
		unexpected: func(expected, got string) error {
			return stage.Invalid(stage.InvalidField, "payload", got, expected)
		},
	}
}

func serverOutbox[M any](s sending[M]) outbox[M] {
	return func(m *M) error {
		err := s.Send(m)
		if gone := callerGone(s.Context(), err); gone != nil {
			return gone
		}
		return err
	}
}

// callerGone gives a context's error when a server's stream failed because nobody is there any more.
func callerGone(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case status.Code(err) == codes.Canceled, status.Code(err) == codes.Unavailable:
		return context.Canceled
	}
	return nil
}

func clientInbox[M any](s receiving[M], kind stage.Kind) inbox[M] {
	return inbox[M]{
		recv: func() (*M, error) {
			m, err := s.Recv()
			switch {
			case errors.Is(err, io.EOF):
				return nil, io.EOF
			case err != nil:
				return nil, FromStatus(err, kind)
			case s.Context().Err() != nil: // messages that came before the cancel do not count
				return nil, s.Context().Err()
			}
			return m, nil
		},
		unexpected: func(expected, got string) error {
			return unsupported(fmt.Sprintf("the %v sent %s, expected %s", kind, got, expected)).With("stage", kind.String())
		},
	}
}

// clientOutbox sends, and where the peer has ended the call early asks in why.
func clientOutbox[M, R any](s sending[M], in inbox[R], kind stage.Kind) outbox[M] {
	return func(m *M) error {
		err := s.Send(m)
		if !errors.Is(err, io.EOF) {
			return FromStatus(err, kind)
		}
		for err = nil; err == nil; {
			_, err = in.recv()
		}
		if errors.Is(err, io.EOF) {
			return in.unexpected("more messages", "the end")
		}
		return err
	}
}

// first receives the message that opens a conversation: the one that get finds in it.
func first[M, P any](in inbox[M], name string, get func(*M) *P) (*P, error) {
	m, err := in.recv()
	if errors.Is(err, io.EOF) {
		return nil, in.unexpected(name, "the end")
	}
	if err != nil {
		return nil, err
	}
	p := get(m)
	if p == nil {
		return nil, in.unexpected(name, payload(m))
	}
	return p, nil
}

// end receives the end of the stream.
func end[M any](in inbox[M]) error {
	m, err := in.recv()
	if err == nil {
		return in.unexpected("the end", payload(m))
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// payload names what a message carries.
func payload(m any) string {
	r := m.(proto.Message).ProtoReflect()
	if of := r.Descriptor().Oneofs().ByName("payload"); of != nil {
		if f := r.WhichOneof(of); f != nil {
			return string(f.Name())
		}
	}
	return "an unknown message"
}

// receive feeds r from in until it is done.
func receive[M any](in inbox[M], r *Receiver, chunk func(*M) *tensorpb.TensorChunk) (stage.Values, error) {
	for !r.Done() {
		m, err := in.recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		c := chunk(m)
		if c == nil {
			return nil, in.unexpected("chunk", payload(m))
		}
		if err := r.Add(c); err != nil {
			return nil, err
		}
	}
	return r.Finish()
}

// sendable finds what would keep grpc from sending a request: its size or its text.
func sendable(m proto.Message) error {
	if n := proto.Size(m); n > MaxMessageBytes {
		return stage.Invalid(stage.InvalidField, "request", fmt.Sprintf("%d bytes", n), fmt.Sprintf("at most %d bytes", MaxMessageBytes))
	}
	if _, err := proto.Marshal(m); err != nil {
		return stage.Invalid(stage.InvalidField, "request", err, "text in UTF-8")
	}
	return nil
}
