package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// diagnosePause is how often a service that cannot be reached is asked why, by talking to it in another way.
const diagnosePause = 5 * time.Second

// Why a service gets no work, as callers are told.
const (
	notHeard   = "it has not answered yet"
	unreached  = "it cannot be reached"
	silent     = "it does not answer"
	draining   = "it takes no new work"
	ownedElse  = "it works for another orchestrator"
	inherited  = "the orchestrator before this one finishes its work"
	standingBy = "this orchestrator stands by"
)

// ServiceState is a service and why it gets no work, or a name and why its addresses are not known.
type ServiceState struct {
	Kind    stage.Kind
	Address string
	Name    bool   // that stands for services, and is none
	Problem string // without secrets; empty when it gets work
}

// Services lists every service that the fleet knows, each once, and names whose addresses it does not, in pipeline order.
func (f *Fleet) Services() []ServiceState {
	var all []ServiceState
	for _, m := range f.all() {
		if m.counts() {
			all = append(all, ServiceState{Kind: m.kind, Address: string(m.id), Problem: m.complaint()})
		}
	}
	f.mu.Lock()
	for _, n := range f.names {
		if n.problem != "" {
			all = append(all, ServiceState{Kind: n.kind, Address: n.text, Name: true, Problem: n.problem})
		}
	}
	f.mu.Unlock()
	slices.SortFunc(all, func(a, b ServiceState) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Address, b.Address))
	})
	return all
}

// counts tells whether the service counts here, and not at another address.
func (m *member) counts() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.twin == ""
}

func (m *member) complaint() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.problem != "":
		return m.problem
	case !m.joined:
		return notHeard
	case m.silent:
		return silent
	case m.info.Draining:
		return draining
	}
	return ""
}

// fail notes why a look failed. m.mu is held.
func (f *Fleet) fail(m *member, err error) {
	words := wordsOf(err)
	if words != unreached {
		m.diagnosis = ""
	}
	f.blame(m, cmp.Or(m.diagnosis, words))
}

// blame notes a problem, and logs one that is new: each cause once. That a service cannot be reached is logged when it is known
// why, or that nobody knows. m.mu is held.
func (f *Fleet) blame(m *member, words string) {
	m.problem = words
	pending := words == unreached && f.diagnose != nil && !m.diagnosed
	if !pending && words != m.logged {
		m.logged = words
		f.logOf(m).Warn("stage gets no work", "cause", words)
	}
}

// well forgets what was wrong. m.mu is held.
func (m *member) well() { m.problem, m.diagnosis, m.diagnosed, m.logged = "", "", false, "" }

// conclude notes what was found out about a service that could not be reached; "" is nothing.
func (f *Fleet) conclude(m *member, words string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isUnreached() { // else it has come back, or says itself what is wrong
		m.diagnosis, m.diagnosed = words, true
		f.blame(m, cmp.Or(words, unreached))
		f.notify()
	}
}

func (f *Fleet) wantsDiagnosis(m *member) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f.diagnose != nil && m.isUnreached()
}

// isUnreached tells whether the last look did not reach the service. m.mu is held.
func (m *member) isUnreached() bool {
	return m.problem != "" && m.problem == cmp.Or(m.diagnosis, unreached)
}

// wordsOf is a failed look in words that do not depend on the connection it was made over.
func wordsOf(err error) string {
	var e *stage.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return silent
	case !errors.As(err, &e):
		return unreached
	case e.Reason == stage.StageUnreachable:
		return unreached
	case stagerpc.OwnerDraining(err):
		return inherited
	case e.Reason == stage.StageOwned:
		return ownedElse
	case e.Reason == stage.StageDraining:
		return draining
	case status.Code(e.Cause) == codes.Unimplemented:
		return "the server there has no stage"
	}
	return e.Message
}

// absent is the error for a stage of which no service answers: StageOwned if one works for another orchestrator, else
// StageUnreachable. It tells what is wrong with each.
func (f *Fleet) absent(kind stage.Kind) *stage.Error {
	reason := stage.StageUnreachable
	var each []string
	for _, s := range f.Services() {
		if s.Kind != kind {
			continue
		}
		if s.Problem == ownedElse || s.Problem == inherited {
			reason = stage.StageOwned
		}
		why := s.Problem
		if !s.Name {
			why = s.Address + ": " + cmp.Or(why, "it does not have the model")
		}
		each = append(each, why)
	}
	const most = 8 // in a message
	if more := len(each) - most; more > 0 {
		each = append(each[:most], fmt.Sprintf("and %d more", more))
	}
	return stage.Errorf(reason, "no %v service that has the model answers; %s", kind, strings.Join(each, "; ")).With("stage", kind.String())
}
