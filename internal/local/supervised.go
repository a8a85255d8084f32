package local

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// supervisedEnv is set in the processes of a Stack. Their standard input is a pipe with one line, the id of the stack's
// orchestrator, which no list of processes shows. It closes when the stack's own process ends, however that ends.
const supervisedEnv = "TRIPTYCH_SUPERVISED"

type ownerKey struct{}

// Supervised returns a context that ends when the process that supervises this one is gone, and that knows the id it has told, see
// OwnerOf. In a process that nobody supervises it is ctx. The error is a supervisor that tells no id.
func Supervised(ctx context.Context) (context.Context, context.CancelFunc, error) {
	return supervised(ctx, os.Getenv(supervisedEnv) != "", os.Stdin)
}

func supervised(ctx context.Context, is bool, stdin io.Reader) (context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(ctx)
	if !is {
		return ctx, cancel, nil
	}
	in := bufio.NewReader(stdin)
	line, err := in.ReadString('\n')
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("the process that started this one has not told the id of its orchestrator: %w", err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return context.WithValue(ctx, ownerKey{}, strings.TrimSpace(line)), cancel, nil
}

// OwnerOf is the id under which the services of a Stack belong to its orchestrator, to both; empty in a process that nobody
// supervises.
func OwnerOf(ctx context.Context) string {
	id, _ := ctx.Value(ownerKey{}).(string)
	return id
}
