package stageplugin

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// pulsing is a stage that tells whether its work gets on. Of another one only a sign of life is to be had.
type pulsing interface{ Pulse() stage.Pulse }

// Serve serves a stage of a kind to the parent process and returns when the parent wants the child to end;
// main should then return. In a process that Launch did not start it returns ErrNotAChild. Options are added to those
// of the server.
//
// A child must not write to standard output, and logs with NewChildLogger, made before serving; nil
// makes one at level info. A panic is not caught: the child ends, and its parent knows what to do
// about that.
func Serve(kind stage.Kind, served stage.Stage, logger *slog.Logger, options ...grpc.ServerOption) error {
	if !IsChild() {
		return ErrNotAChild
	}
	if want := os.Getenv(kindKey); want != kind.String() {
		return fmt.Errorf("the parent wants a runtime for the %s, this is one for the %v", want, kind)
	}
	if logger == nil {
		logger = NewChildLogger(slog.LevelInfo)
	}
	stdin := bufio.NewReader(os.Stdin)
	own, err := readCredentials(stdin)
	if err != nil {
		return err
	}
	go endWithParent(stdin)
	pulse := func() stage.Pulse { return stage.Pulse{} }
	if p, ok := served.(pulsing); ok {
		pulse = p.Pulse
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: handshake,
		TLSProvider:     func() (*tls.Config, error) { return own.config(), nil },
		Plugins: wire{kind: kind, register: func(s grpc.ServiceRegistrar) {
			stagerpc.Register(s, kind, served, logger)
			stagerpc.RegisterPulse(s, pulse)
		}}.plugins(),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(slices.Concat(opts, []grpc.ServerOption{grpc.MaxRecvMsgSize(stagerpc.MaxMessageBytes)}, options)...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn, JSONFormat: true}),
	})
	return nil
}

// endWithParent ends the process when its parent has: the parent holds the other end of stdin for
// as long as it lives and writes nothing but the credentials. On Linux the kernel is usually faster (see sysproc).
func endWithParent(stdin io.Reader) {
	_, _ = io.Copy(io.Discard, stdin)
	os.Exit(exitOrphaned)
}

// exitOrphaned is the exit code of a child whose parent went away.
const exitOrphaned = 3
