package triptych

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
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
	allow  []string // if there are any, nothing else of this module but the folder's own
	why    string
}

func laws() []law {
	outside := []string{"net", "log", "google.golang.org/grpc", "google.golang.org/protobuf", "stage", "proto", "services", "orchestrator", "cmd", "internal", "families", "planner"}
	all := []law{
		{folder: "engine", deny: outside, why: "the engine computes and knows no network, no wire and no log"},
		{folder: "engine/kernel", deny: []string{"engine"}, why: "kernels work on plain slices"},
		{folder: "engine/tensor", deny: []string{"engine"}, why: "tensors are the bottom"},
		{folder: "engine/model/inversion", allow: []string{"engine/weights"}, why: "a textual inversion is a small file of vectors"},
		{folder: "engine/prompt", allow: none(), why: "a prompt is read by its characters and whatever tokenizer there is"},
		{folder: "engine/device/cpu", allow: []string{"engine/device", "engine/kernel"}, why: "a device knows the seam and its own kernels"},
		{folder: "engine/device/devicetest", allow: []string{"engine/device"}, why: "the suite knows no device"},
		{folder: "engine/device/devices", allow: []string{"engine/device", "engine/device/cpu"}, why: "one table knows the devices"},
		{folder: "engine/weights", allow: []string{"engine/kernel", "engine/weights/torchfile"}, why: "files are read, and nothing is known of what for"},
		{folder: "engine/weights/torchfile", allow: none(), why: "hostile files are read by what can do nothing else"},
		{folder: "engine/nn", deny: []string{"engine/device/cpu", "engine/model", "engine/weights", "engine/kernel"}, why: "layers know the device by its interface only"},
		{folder: "stage", except: []string{"stage/stagerpc", "stage/stageplugin", "stage/stagetest", "stage/stageengine"}, deny: []string{"google.golang.org", "github.com", "net", "log", "proto", "engine/"}, why: "the nouns import engine/tensor only"},
		{folder: "families", allow: []string{"engine/", "stage"}, why: "a family is networks and loops over them"},
		{folder: "families/family", allow: []string{"engine/", "stage"}, why: "the parts of families know none"},
		{folder: "families/latent", allow: []string{"engine/", "families/family", "stage"}, why: "what families share knows none of them"},
		{folder: ".", except: []string{"families"}, deny: []string{"families/latent"}, why: "a stage knows no family, nor what some of them share"},
		{folder: ".", except: []string{"families"}, deny: families(), why: "one list knows the families, and stages are given it"},
		{folder: "stage/stageengine", allow: []string{"engine/", "families/family", "stage"}, why: "a stage knows no family"},
		{folder: "planner", allow: []string{"engine/", "families/family", "orchestrator/residency", "orchestrator/residency/simulate", "stage", "stage/stageengine"}, why: "plans ask the stages that would do the work"},
		{folder: "orchestrator", deny: []string{"engine/", "services", "planner", "families", "stage/stageengine", "stage/stageplugin", "cmd"}, why: "the orchestrator sees stages through their interfaces"},
		{folder: "orchestrator/residency", deny: []string{"google.golang.org", "net", "log", "proto", "stage/"}, why: "who is in memory is decided purely"},
		{folder: "orchestrator/residency/simulate", deny: []string{"github.com", "golang.org", "engine", "internal", "orchestrator/api", "orchestrator/fleet", "orchestrator/pipeline", "os", "sync"}, why: "a simulation has traces and the ledger, and nothing that happens by itself"},
		{folder: "orchestrator/scale", allow: []string{"orchestrator/residency", "stage"}, why: "how much work waits is computed from the snapshot alone"},
		{folder: "orchestrator/scale", deny: []string{"google.golang.org", "net", "log", "context"}, why: "how much work waits is computed without I/O"},
		{folder: "orchestrator/scaler", allow: []string{"orchestrator/scale", "proto/externalscaler", "stage", "stage/stagerpc"}, why: "the scaler tells the backlog, and decides nothing"},
		{folder: ".", except: []string{"orchestrator/scaler"}, deny: []string{"proto/externalscaler"}, why: "KEDA's names stay behind one seam"},
		{folder: "services/encoder", deny: []string{"services/denoiser", "services/decoder", "orchestrator", "engine/"}, why: "no service imports another"},
		{folder: "services/denoiser", deny: []string{"services/encoder", "services/decoder", "orchestrator", "engine/"}, why: "no service imports another"},
		{folder: "services/decoder", deny: []string{"services/encoder", "services/denoiser", "orchestrator", "engine/"}, why: "no service imports another"},
		{folder: "internal/deviceclaim", deny: []string{"google.golang.org", "net", "log", "proto", "stage/", "services", "orchestrator", "cmd"}, why: "a device is shared through files alone"},
		{folder: ".", except: []string{"cmd", "internal/deviceclaim"}, deny: []string{"internal/deviceclaim"}, why: "the runtime process holds the device's memory, and nobody else may"},
		{folder: ".", except: []string{"stage/stageplugin"}, deny: []string{"github.com/hashicorp/go-plugin"}, why: "go-plugin stays behind one seam"},
		{folder: ".", except: fakes(), deny: fakes(), why: "fakes and suites are for tests"},
		{folder: ".", except: []string{"orchestrator/metrics"}, deny: []string{"github.com/prometheus/client_golang"}, why: "Prometheus stays behind one seam"},
		{folder: ".", except: []string{"internal/top"}, deny: []string{"charm.land", "github.com/charmbracelet"}, why: "one room knows how to draw in a terminal"},
		{folder: ".", except: []string{"engine/device/cuda"}, deny: []string{"gorgonia.org/cu"}, why: "it exits the process where no GPU answers"},
		{folder: "internal/baseline", allow: []string{"orchestrator/residency", "orchestrator/residency/simulate", "stage"}, why: "the memory policy is compared from outside"},
		{folder: "internal/cgroup", allow: none(), why: "control groups are the kernel's"},
		{folder: "internal/cpulimit", allow: []string{"internal/cgroup"}, why: "processors are the kernel's"},
		{folder: "internal/deviceclaim", allow: []string{"engine/device", "stage"}, why: "a device is shared by records of bytes"},
		{folder: "internal/exif", allow: none(), why: "it reads bytes"},
		{folder: "internal/fetch", allow: []string{"internal/modelfolder", "stage"}, why: "files come over HTTP and go to a folder"},
		{folder: "internal/infotext", allow: none(), why: "it reads and writes a text"},
		{folder: "internal/local", allow: []string{"internal/procusage", "internal/rpcserver", "stage"}, why: "it starts processes and does no work of theirs"},
		{folder: "internal/modelcache", deny: []string{"net"}, allow: []string{"internal/modelfolder", "stage"}, why: "models go from folder to folder"},
		{folder: "internal/modelfolder", deny: []string{"google.golang.org", "net", "log"}, allow: []string{"stage"}, why: "models are shared through files alone"},
		{folder: "internal/procusage", allow: none(), why: "processes are the kernel's"},
		{folder: "internal/recording", allow: []string{"orchestrator/residency/simulate", "proto/triptych/v1alpha1", "stage"}, why: "a recording is the public stream, rebuilt as a trace"},
		{folder: "internal/release", allow: []string{"internal/cgroup", "proto/triptych/stage/v1alpha1"}, why: "what to give back is decided by calls and bytes alone"},
		{folder: "internal/rpcserver", allow: []string{"stage", "stage/stagerpc"}, why: "every gRPC server is run alike, whatever it serves"},
		{folder: "internal/timeline", allow: []string{"proto/triptych/v1alpha1", "stage"}, why: "a timeline is drawn from the public stream"},
		{folder: "internal/top", allow: []string{"proto/triptych/v1alpha1", "stage"}, why: "a view is drawn from the public stream"},
		{folder: "tools", except: []string{"tools/k8s/suite"}, allow: []string{"tools/"}, why: "tools run programs, ours too, from outside"},
		{folder: "tools/k8s/suite", allow: []string{"proto/triptych/v1alpha1", "tools/k8s/cluster"}, why: "a cluster's callers know the public API alone"},
		{folder: "cmd", allow: []string{"engine/device", "engine/device/devices", "engine/imaging", "engine/sampler", "engine/tensor", "internal/", "orchestrator", "orchestrator/api", "orchestrator/fleet", "orchestrator/residency", "orchestrator/residency/simulate", "families", "planner", "proto/triptych/v1alpha1", "services/encoder", "services/denoiser", "services/decoder", "stage", "stage/stageengine", "stage/stageplugin", "stage/stagerpc"}, why: "commands wire rooms together"},
		{folder: "bench", allow: []string{"engine/", "families", "internal/baseline", "orchestrator/residency/simulate", "proto/", "stage", "stage/stageengine", "stage/stagerpc"}, why: "benchmarks measure the engine, and a running system from outside"},
	}
	for _, f := range families() {
		others := slices.DeleteFunc(families(), func(other string) bool { return other == f })
		all = append(all, law{folder: f, deny: others, why: "families share functions, and not each other"})
	}
	return all
}

// families are the folders of families, but for what they share.
func families() (folders []string) {
	shared := []string{"families/family", "families/latent"}
	found, _ := filepath.Glob("families/*")
	for _, folder := range found {
		if name := filepath.ToSlash(folder); filepath.Ext(name) == "" && !slices.Contains(shared, name) {
			folders = append(folders, name)
		}
	}
	return folders
}

// none allows nothing.
func none() []string { return []string{"nothing"} }

// fakes are the rooms that only tests may enter.
func fakes() []string {
	return []string{"engine/device/devicetest", "stage/stagetest", "services/internal/servicetest", "orchestrator/fleet/fleettest", "families/testdata"}
}

// allowed is an import that a law's prefix catches and that is meant to be there.
func allowed(folder, path string) bool {
	return path == "engine/tensor" && !below(folder, "engine/tensor") && !below(folder, "engine/kernel") ||
		path == "internal/exif" && folder == "engine/imaging"
}

// TestImportLaw parses every Go file of the repository, whatever its build tags, tests included.
func TestImportLaw(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" && path != filepath.Join("families", "testdata") || d.Name() == "_asm" || strings.HasPrefix(d.Name(), ".venv")) {
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
			for _, why := range broken(folder, imported, strings.HasSuffix(path, "_test.go")) {
				t.Errorf("%s imports %s: %s", path, imported, why)
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

// broken tells why a file of a folder may not have an import, by every law that forbids it.
func broken(folder, imported string, test bool) (why []string) {
	inside, ours := strings.CutPrefix(imported, module)
	if allowed(folder, inside) || test && testOnly(inside) {
		return nil
	}
	for _, l := range laws() {
		own := ours && l.folder != "." && below(inside, l.folder)
		switch {
		case !below(folder, l.folder) || matches(folder, l.except):
		case own && l.folder != "engine/kernel" && l.folder != "engine/tensor":
		case slices.ContainsFunc(l.deny, func(deny string) bool { return covers(deny, inside) }),
			ours && len(l.allow) > 0 && !test && !slices.ContainsFunc(l.allow, func(allow string) bool {
				return inside == allow || strings.HasSuffix(allow, "/") && covers(allow, inside)
			}):
			why = append(why, l.why)
		}
	}
	return why
}

// covers tells whether a path of a law means an import.
func covers(path, imported string) bool {
	if strings.HasSuffix(path, "/") {
		return strings.HasPrefix(imported, path)
	}
	return below(imported, path)
}

// TestImportLawCatches plants imports that the laws are there to catch, and some beside them that they are not.
func TestImportLawCatches(t *testing.T) {
	for _, c := range []struct {
		folder, imported string
		test, caught     bool
	}{
		{"engine/nn", module + "engine/device/cpu", false, true},
		{"engine/nn", module + "engine/device", false, false},
		{"engine/kernel", module + "engine/tensor", false, true},
		{"engine/device/cpu", "net/http", false, true},
		{"engine/device/cpu", module + "engine/device/devices", false, true},
		{"engine/device/cpu", module + "engine/tensor", false, false},
		{"engine/device/devicetest", module + "engine/device/cpu", false, true},
		{"engine/device/devicetest", module + "engine/device/cpu", true, false},
		{"engine/device/devices", module + "engine/model/modeldir", false, true},
		{"cmd/triptych", module + "engine/device/cpu", false, true},
		{"engine/imaging", module + "internal/exif", false, false},
		{"engine/nn", module + "internal/exif", false, true},
		{"stage", module + "engine/device", false, true},
		{"stage", module + "engine/tensor", false, false},
		{"orchestrator/fleet", module + "stage/stageengine", false, true},
		{"stage/stageengine", module + "families", false, true},
		{"stage/stageengine", module + "families", true, false},
		{"stage/stageengine", module + "families/family", false, false},
		{"planner", module + "families/sd", false, true},
		{"families/sdxl", module + "families/sd", false, true},
		{"families/testdata/toy", module + "families/sd", false, true},
		{"families/testdata/toy", module + "orchestrator", false, true},
		{"families", module + "families/sd", false, false},
		{"families/sd", module + "families/family", false, false},
		{"families/sd", module + "families/latent", false, false},
		{"families/latent", module + "families/sd", false, true},
		{"families/family", module + "families/latent", false, true},
		{"stage/stageengine", module + "families/latent", false, true},
		{"engine/nn", module + "families/family", false, true},
		{"orchestrator/residency", module + "stage/stagerpc", false, true},
		{"orchestrator/scale", module + "orchestrator/fleet", false, true},
		{"orchestrator/scale", module + "orchestrator/residency", false, false},
		{"orchestrator/scale", "google.golang.org/grpc", false, true},
		{"orchestrator/scaler", module + "orchestrator/residency", false, true},
		{"orchestrator/api", module + "proto/externalscaler", false, true},
		{"services/encoder", module + "services/decoder", false, true},
		{"services/encoder", "github.com/hashicorp/go-plugin", false, true},
		{"stage/stageplugin", "github.com/hashicorp/go-plugin", false, false},
		{"orchestrator/api", module + "stage/stagetest", false, true},
		{"orchestrator/api", module + "stage/stagetest", true, false},
		{"internal/top", module + "orchestrator/api", false, true},
		{"internal/top", module + "stage", false, false},
		{"internal/top", module + "stage/stagerpc", false, true},
		{"internal/cgroup", module + "stage", false, true},
		{"orchestrator/residency/simulate", module + "internal/baseline", true, true},
		{"cmd/triptych", module + "orchestrator/pipeline", false, true},
		{"cmd/triptych", module + "internal/top", false, false},
		{"bench/trace", module + "orchestrator/api", false, true},
		{"cmd/triptych", "gorgonia.org/cu", false, true},
	} {
		if why := broken(c.folder, c.imported, c.test); (len(why) > 0) != c.caught {
			t.Errorf("%s imports %s (test: %v): caught is %v, for %q", c.folder, c.imported, c.test, !c.caught, why)
		}
	}
}

// testOnly are imports that every test may have.
func testOnly(path string) bool {
	return matches(path, fakes()) || path == "proto/externalscaler" || path == "log/slog" || path == "net" || path == "internal/deviceclaim"
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
