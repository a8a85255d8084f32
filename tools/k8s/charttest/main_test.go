package charttest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/triptych-serving/triptych/tools/k8s/tool"
)

var chartFlag = flag.String("chart", "", "test the chart in this `folder` of the repository, with programs that are built where they are missing")

// tally counts what was looked at, whether it stands as a subtest or in a table of hundreds.
var tally struct{ passed, failed atomic.Int64 }

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if *chartFlag != "" {
		fmt.Printf("%d passed, %d failed\n", tally.passed.Load(), tally.failed.Load())
		if code == 0 && tally.passed.Load() == 0 {
			fmt.Println("nothing was tested")
			code = 1
		}
	}
	os.Exit(code)
}

// verdict counts one check, which failed if there is anything to say.
func verdict(t *testing.T, name string, problems ...string) {
	t.Helper()
	if len(problems) == 0 {
		tally.passed.Add(1)
		return
	}
	tally.failed.Add(1)
	for _, p := range problems {
		t.Errorf("%s: %s", name, p)
	}
}

// broken fails a test that cannot go on.
func broken(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		tally.failed.Add(1)
		t.Fatal(err)
	}
}

// chart is the chart's folder. Without the flag there is nothing to test.
func chart(t *testing.T) string {
	t.Helper()
	if *chartFlag == "" {
		t.Skip("make test-chart runs this: it builds Helm and other tools, which takes minutes the first time")
	}
	root, err := tool.Root()
	broken(t, err)
	dir := *chartFlag
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(root, dir)
	}
	return dir
}

// program runs a tool and returns what it says.
func program(t *testing.T, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	path, err := tool.Path(t.Context(), name)
	broken(t, err)
	var out, said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	return out.String(), said.String(), err
}
