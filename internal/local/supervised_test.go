package local

import (
	"io"
	"testing"
)

// TestSupervised: what a supervisor tells is heard, and its end.
func TestSupervised(t *testing.T) {
	stdin, supervisor := io.Pipe()
	go func() { _, _ = io.WriteString(supervisor, "secret\n") }()
	ctx, cancel, err := supervised(t.Context(), true, stdin)
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	if id := OwnerOf(ctx); id != "secret" {
		t.Errorf("the id is %q", id)
	}
	if ctx.Err() != nil {
		t.Error("it has ended before the supervisor")
	}
	_ = supervisor.Close()
	<-ctx.Done()

	alone, cancel, err := supervised(t.Context(), false, stdin)
	if err != nil || OwnerOf(alone) != "" || alone.Err() != nil {
		t.Errorf("alone: %q, %v, %v", OwnerOf(alone), alone.Err(), err)
	}
	cancel()
	if _, _, err := supervised(t.Context(), true, stdin); err == nil { // which is at its end
		t.Error("a supervisor that tells nothing is no error")
	}
}
