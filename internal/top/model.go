package top

import (
	"context"
	"errors"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// framesPerSecond is how often the terminal is drawn at most; without news it is not.
const framesPerSecond = 5

// Model is the view of a terminal.
type Model struct {
	state         State
	server        string
	width, height int // of the terminal, in cells
	zone          *time.Location
}

// NewModel is a view that has seen nothing.
func NewModel(server string, zone *time.Location) Model {
	return Model{server: server, width: 80, height: 24, zone: zone}
}

// Init implements tea.Model.
func (Model) Init() tea.Cmd { return nil }

// Update implements tea.Model: news, the terminal's size, and the keys that quit.
func (m Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case *triptychv1alpha1.WatchResidencyResponse:
		m.state = m.state.Apply(msg)
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		}
	}
	return m, nil
}

// View implements tea.Model.
func (m Model) View() tea.View {
	v := tea.NewView(m.state.View(m.server, m.width, m.height, m.zone))
	v.AltScreen = true
	return v
}

// Run shows news in the terminal until somebody quits, ctx ends or news is closed, none of which is an
// error.
func Run(ctx context.Context, in io.Reader, out io.Writer, server string, news <-chan *triptychv1alpha1.WatchResidencyResponse) error {
	ctx, cancel := context.WithCancel(ctx)
	p := tea.NewProgram(NewModel(server, time.Local), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out),
		tea.WithFPS(framesPerSecond), tea.WithoutSignalHandler())
	told := make(chan struct{})
	go func() {
		defer close(told)
		for {
			select {
			case n, more := <-news:
				if !more {
					p.Quit()
					return
				}
				p.Send(n)
			case <-ctx.Done():
				return
			}
		}
	}()
	_, err := p.Run()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		err = nil
	}
	cancel()
	<-told
	return err
}
