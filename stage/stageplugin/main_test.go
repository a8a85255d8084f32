package stageplugin

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// The test binary plays other programs when these are set.
const (
	roleKey   = "STAGEPLUGIN_TEST_ROLE"   // what to be, a fake of the stage that Launch wants by default
	scriptKey = "STAGEPLUGIN_TEST_SCRIPT" // of a fake
	lifeKey   = "STAGEPLUGIN_TEST_LIFE"   // a pipe that a fake holds open as long as it lives
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleKey)
	switch {
	case role == "parent":
		playParent()
	case role == "silent":
		fmt.Fprintln(os.Stderr, "I have nothing to say")
		time.Sleep(time.Hour)
	case role == "refuser":
		fmt.Fprintln(os.Stderr, "there is no model folder")
		os.Exit(7)
	case role == "hopeless":
		fmt.Fprint(os.Stderr, "first this\ntriptych: --threads 10000: too many\n")
		os.Exit(ExitRefused)
	case role == "encoder":
		exit(Serve(stage.KindEncoder, stagetest.New(stage.KindEncoder, nil), nil))
	case IsChild():
		playFake()
	}
	goleak.VerifyTestMain(m)
}

// playFake serves what Launch wants.
func playFake() {
	logger := NewChildLogger(levelTrace)
	if path := os.Getenv(lifeKey); path != "" {
		if _, err := os.OpenFile(path, os.O_WRONLY, 0); err != nil {
			exit(err)
		}
	}
	script, err := stagetest.ParseScript(os.Getenv(scriptKey))
	if err != nil {
		exit(err)
	}
	logger.Warn("playing a fake", "kind", os.Getenv(kindKey), "@message", 1, "answer", 42)
	logger.Log(nil, levelTrace, "in detail") //nolint:staticcheck // no context here
	fmt.Fprintln(os.Stderr, "a plain line")
	kind, ok := stage.ParseKind(os.Getenv(kindKey))
	if !ok {
		exit(fmt.Errorf("no such kind: %q", os.Getenv(kindKey)))
	}
	var served stage.Stage = stagetest.New(kind, script)
	if kind == stage.KindEncoder {
		served = chatty{served, logger}
	}
	exit(Serve(kind, served, logger))
}

// playParent launches a child and waits to be killed.
func playParent() {
	child, err := Launch(background, Options{
		Kind: stage.KindEncoder, Command: []string{os.Args[0]},
		Env: []string{roleKey + "="}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		exit(err)
	}
	fmt.Println(child.PID())
	<-child.Exited()
	os.Exit(1)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
