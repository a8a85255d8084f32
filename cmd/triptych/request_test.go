package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/testing/protocmp"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// modelList is a server that has some models.
type modelList struct {
	triptychv1alpha1.UnimplementedModelServiceServer
	models []*triptychv1alpha1.Model
}

func (l modelList) ListModels(context.Context, *triptychv1alpha1.ListModelsRequest) (*triptychv1alpha1.ListModelsResponse, error) {
	return &triptychv1alpha1.ListModelsResponse{Models: l.models}, nil
}

// TestResolve: a request names the default model where that is one of several, and its options have the types of the model.
func TestResolve(t *testing.T) {
	model := func(name string) *triptychv1alpha1.Model {
		if strings.HasPrefix(name, "+") {
			return &triptychv1alpha1.Model{Name: name, Adapter: "controlnet"}
		}
		option := func(name string, as triptychv1alpha1.Option_Type) *triptychv1alpha1.Option {
			return &triptychv1alpha1.Option{Name: name, Type: as}
		}
		return &triptychv1alpha1.Model{Name: name, Tasks: []*triptychv1alpha1.Task{{Options: []*triptychv1alpha1.Option{
			option("frames", triptychv1alpha1.Option_TYPE_INT), option("pull", triptychv1alpha1.Option_TYPE_FLOAT),
			option("style", triptychv1alpha1.Option_TYPE_TEXT), option("loop", triptychv1alpha1.Option_TYPE_BOOL),
		}}}}
	}
	for name, c := range map[string]struct {
		has           []string
		asks, becomes string
		options       []string
		want          *triptychv1alpha1.GenerationSpec
		refused       stage.Reason
	}{
		"the default":  {has: []string{"a", defaultModel}, becomes: defaultModel},
		"no default":   {has: []string{"a", "b"}},
		"the only one": {has: []string{"a"}, becomes: "a"},
		"beside adapters": {has: []string{"a", "+canny", "+style"}, becomes: "a", options: []string{"loop=true"}, want: &triptychv1alpha1.GenerationSpec{
			Options: map[string]*triptychv1alpha1.OptionValue{"loop": {Value: &triptychv1alpha1.OptionValue_Bool{Bool: true}}},
		}},
		"an adapter":     {has: []string{"a", "+canny"}, asks: "+canny", becomes: "+canny", options: []string{"frames=1"}, refused: stage.ModelNotFound},
		"named":          {has: []string{"a", defaultModel}, asks: "a", becomes: "a"},
		"unknown option": {has: []string{"a"}, options: []string{"speed=1"}, refused: stage.InvalidField},
		"other type":     {has: []string{"a"}, options: []string{"frames=1.5"}, refused: stage.InvalidField},
		"unknown model":  {has: []string{"a", "b"}, asks: "c", becomes: "c", options: []string{"frames=1"}, refused: stage.ModelNotFound},
		"which model":    {has: []string{"a", "b"}, options: []string{"frames=1"}, refused: stage.ModelNotFound},
		"options": {has: []string{"a"}, becomes: "a", options: []string{"frames=3", "pull=1", "style=a=b", "loop=true"}, want: &triptychv1alpha1.GenerationSpec{
			Options: map[string]*triptychv1alpha1.OptionValue{
				"frames": {Value: &triptychv1alpha1.OptionValue_Int{Int: 3}}, "pull": {Value: &triptychv1alpha1.OptionValue_Float{Float: 1}},
				"style": {Value: &triptychv1alpha1.OptionValue_Text{Text: "a=b"}}, "loop": {Value: &triptychv1alpha1.OptionValue_Bool{Bool: true}},
			},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var list modelList
			for _, m := range c.has {
				list.models = append(list.models, model(m))
			}
			server := grpc.NewServer()
			triptychv1alpha1.RegisterModelServiceServer(server, list)
			go func() { _ = server.Serve(lis) }() // until it is stopped
			defer server.Stop()
			f := generateFlags{server: serverFlags{address: lis.Addr().String()}, options: c.options}
			conn, err := f.server.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			spec := &triptychv1alpha1.GenerationSpec{Model: c.asks}
			if err := f.resolve(t.Context(), conn, spec, io.Discard); stage.ReasonOf(err) != c.refused || (err != nil) != (c.refused != "") {
				t.Fatalf("%v, want %q", err, c.refused)
			}
			if c.refused != "" {
				return
			}
			want := &triptychv1alpha1.GenerationSpec{Model: c.becomes, Options: c.want.GetOptions()}
			if diff := cmp.Diff(want, spec, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestReadInput: a pipe is read to its end, and one that nobody writes to is given up with the command.
func TestReadInput(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readInput(ended, "init-image", pipe); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	written := make(chan error)
	another := pipe + "2"
	if err := syscall.Mkfifo(another, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() { written <- os.WriteFile(another, []byte("a picture"), 0o600) }()
	data, err := readInput(t.Context(), "init-image", another)
	if err := errors.Join(err, <-written); err != nil || string(data) != "a picture" {
		t.Errorf("read %q, %v", data, err)
	}
}
