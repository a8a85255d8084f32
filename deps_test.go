package triptych

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/triptych-serving/triptych/"

// A law says which imports the files below a folder may not have, by path (those of this module
// without its name). A path with a slash at its end means what is below it and not itself.
type law struct {
	folder string
	except []string // folders below it that the law does not bind
	deny   []string
	why    string
}

func laws() []law {
	outside := []string{"net", "log", "google.golang.org/grpc", "google.golang.org/protobuf", "stage", "proto", "services", "orchestrator", "cmd", "internal"}
	return []law{
		{folder: "engine", deny: outside, why: "the engine computes and knows no network, no wire and no log"},
		{folder: "engine/kernel", deny: []string{"engine"}, why: "kernels work on plain slices"},
		{folder: "engine/tensor", deny: []string{"engine"}, why: "tensors are the bottom"},
		{folder: "engine/nn", deny: []string{"engine/device/cpu", "engine/model", "engine/weights", "engine/kernel"}, why: "layers know the device by its interface only"},
		{folder: "stage", except: []string{"stage/stagerpc", "stage/stageplugin", "stage/stagetest", "stage/stageengine"}, deny: []string{"google.golang.org", "github.com", "net", "log", "proto", "engine/"}, why: "the nouns import engine/tensor only"},
		{folder: "orchestrator", deny: []string{"engine/", "services", "stage/stageengine", "stage/stageplugin", "cmd"}, why: "the orchestrator sees stages through their interfaces"},
		{folder: "orchestrator/residency", deny: []string{"google.golang.org", "net", "log", "proto", "stage/"}, why: "who is in memory is decided purely"},
		{folder: "orchestrator/residency/simulate", deny: []string{"github.com", "golang.org", "engine", "internal", "orchestrator/api", "orchestrator/fleet", "orchestrator/pipeline", "os", "sync"}, why: "a simulation has traces and the ledger, and nothing that happens by itself"},
		{folder: "services/encoder", deny: []string{"services/denoiser", "services/decoder", "orchestrator", "engine/"}, why: "no service imports another"},
		{folder: "services/denoiser", deny: []string{"services/encoder", "services/decoder", "orchestrator", "engine/"}, why: "no service imports another"},
		{folder: "services/decoder", deny: []string{"services/encoder", "services/denoiser", "orchestrator", "engine/"}, why: "no service imports another"},
		{folder: "internal/devicelease", deny: []string{"google.golang.org", "net", "log", "proto", "stage/", "services", "orchestrator", "cmd"}, why: "a device is shared through files alone"},
		{folder: ".", except: []string{"cmd", "internal/devicelease"}, deny: []string{"internal/devicelease"}, why: "the runtime process holds the device's memory, and nobody else may"},
		{folder: ".", except: []string{"stage/stageplugin"}, deny: []string{"github.com/hashicorp/go-plugin"}, why: "go-plugin stays behind one seam"},
		{folder: ".", except: fakes(), deny: fakes(), why: "fakes and suites are for tests"},
		{folder: ".", except: []string{"orchestrator/metrics"}, deny: []string{"github.com/prometheus/client_golang"}, why: "Prometheus stays behind one seam"},
		{folder: ".", except: []string{"internal/top"}, deny: []string{"charm.land", "github.com/charmbracelet"}, why: "one room knows how to draw in a terminal"},
		{folder: ".", except: []string{"engine/device/cuda"}, deny: []string{"gorgonia.org/cu"}, why: "it exits the process where no GPU answers"},
	}
}

// fakes are the rooms that only tests may enter.
func fakes() []string {
	return []string{"engine/device/devicetest", "stage/stagetest", "services/internal/servicetest", "orchestrator/fleet/fleettest"}
}

// allowed are imports that a law's prefix catches and that are meant to be there.
func allowed(folder, path string) bool {
	switch {
	case path == "engine/tensor":
		return !strings.HasPrefix(folder, "engine/tensor") && !strings.HasPrefix(folder, "engine/kernel")
	case strings.HasPrefix(folder, "orchestrator") && path == "engine/tensor":
		return true
	}
	return false
}

// TestImportLaw parses every Go file of the repository, whatever its build tags, tests included.
func TestImportLaw(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "_asm" || strings.HasPrefix(d.Name(), ".venv")) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		folder := filepath.ToSlash(filepath.Dir(path))
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			inside := strings.TrimPrefix(imported, module)
			for _, l := range laws() {
				if !below(folder, l.folder) || matches(folder, l.except) || allowed(folder, inside) || (strings.HasSuffix(path, "_test.go") && testOnly(inside)) {
					continue
				}
				if imported != inside && l.folder != "." && below(inside, l.folder) && l.folder != "engine/kernel" && l.folder != "engine/tensor" {
					continue // its own room
				}
				for _, deny := range l.deny {
					if strings.HasSuffix(deny, "/") && !strings.HasPrefix(inside, deny) || !below(inside, strings.TrimSuffix(deny, "/")) {
						continue
					}
					t.Errorf("%s imports %s: %s", path, imported, l.why)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("only %d files were looked at", files)
	}
}

// testOnly are imports that every test may have.
func testOnly(path string) bool {
	return matches(path, fakes()) || path == "log/slog" || path == "net" || path == "internal/devicelease"
}

func below(path, folder string) bool {
	return folder == "." || path == folder || strings.HasPrefix(path, folder+"/")
}

func matches(path string, folders []string) bool {
	for _, f := range folders {
		if below(path, f) {
			return true
		}
	}
	return false
}
