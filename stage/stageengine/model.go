package stageengine

import (
	"maps"
	"slices"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// model is a model of the library, of configs as they were at one time.
type model struct {
	name, path string
	vae        string        // the file of an autoencoder that takes the place of its own; empty without
	files      *family.Model // nil if problem tells why it is not there
	problem    *stage.Error
	unusable   string // why no turn of it can be taken; empty if they can
	stamp      string
}

// stampNow is that of the configs, and the names of weight files; whole tells whether all could be looked at.
func (m *model) stampNow() (stamp string, whole bool) {
	var folders []string // all, of what cannot be opened
	if m.files != nil {
		folders = m.files.Folders
	}
	return m.look(folders, []string{})
}

// look is modeldir.Stamp of the model.
func (m *model) look(folders, used []string) (stamp string, whole bool) {
	if m.vae == "" {
		return modeldir.Stamp(m.path, folders, used)
	}
	return modeldir.Stamp(m.path, folders, used, m.vae)
}

// changed reports whether the configs are others than those that were read, and whether all are there.
func (m *model) changed() (changed, complete bool) {
	now, complete := m.stampNow()
	return now != m.stamp, complete
}

// open reads the configs of a model.
func (s *Stage) open(name, path string) *model {
	m := &model{name: name, path: path, vae: s.Library.VAE(name)}
	before, _ := m.look(nil, []string{})
	var err error
	if m.files, err = family.Open(s.Families, path, m.vae); err != nil {
		m.files, m.problem = nil, ModelError(err, s.kind, name, path, m.vae)
		m.unusable = m.problem.Message
	} else if m.files.Problem != nil {
		m.unusable = ModelError(m.files.Problem, s.kind, name, path, m.vae).Message
	}
	if after, _ := m.look(nil, []string{}); after == before {
		m.stamp, _ = m.stampNow()
	}
	return m
}

// declare opens a model, and makes books of those components that have none.
func (s *Stage) declare(name, path string) *model {
	m := s.open(name, path)
	s.mu.Lock()
	s.models[name] = m
	s.mu.Unlock()
	for _, part := range s.parts(m) {
		if s.book(part.Name) == nil {
			s.put(part.Name, nil, s.newBook(m, part))
		}
	}
	return m
}

// parts are the components of a model that are the stage's.
func (s *Stage) parts(m *model) (out []*family.Component) {
	if m.files == nil {
		return nil
	}
	for i := range m.files.Components {
		if part := &m.files.Components[i]; part.Kind == s.kind {
			out = append(out, part)
		}
	}
	return out
}

// model is that of a name, nil if there is none.
func (s *Stage) model(name string) *model {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.models[name]
}

// known are the models by name.
func (s *Stage) known() []*model {
	s.mu.Lock()
	defer s.mu.Unlock()
	return byKey(s.models)
}

// book is that of a component, nil if there is none.
func (s *Stage) book(component string) *book {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.books[component]
}

// all are the books by name.
func (s *Stage) all() []*book {
	s.mu.Lock()
	defer s.mu.Unlock()
	return byKey(s.books)
}

// byKey lists the values of a map, in the order of their keys.
func byKey[V any](m map[string]V) (out []V) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[key])
	}
	return out
}
