//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// atOnce is long for a command that only has to refuse its flags, and short of every wait for what cannot come.
const atOnce = 30 * time.Second

// TestHopeless: a command that can never work ends at once with the code of bad usage, and its last line says why.
func TestHopeless(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("l", 100))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "x.png")
	local := map[string][]string{
		"generate": {"generate", "x", "-o", image}, "up": {"up", "--listen", "127.0.0.1:0"}, "encoder": {"encoder", "--listen", "127.0.0.1:0"},
	}
	const claims, model = "--device-claims", "--models"
	for name, args := range local {
		for _, c := range []struct {
			env, says string
			args      []string
		}{
			{"TMPDIR=" + filepath.Join(dir, "missing"), "TMPDIR", nil},
			{"TMPDIR=" + long, "TMPDIR", nil},
			{"TMPDIR=" + file, "TMPDIR", nil},
			{"TRIPTYCH_CPU=z80", "z80", nil},
			{"TRIPTYCH_CONV=fast", "TRIPTYCH_CONV", nil},
			{"TRIPTYCH_TEST_FAULTS=fox", "fox", nil}, // which only a runtime reads
			{"", "4096", []string{"--threads", "10000"}},
			{"", "-1", []string{"--threads", "-1"}},
			{"", "nowhere", []string{model, filepath.Join(dir, "nowhere")}},
			{"", file, []string{model, file}},
			{"", claims, []string{"--memory-budget", "1GiB", claims, file}},
			{"", claims, []string{"--memory-budget", "1GiB", claims, filepath.Join(dir, "missing")}},
			{"", "int9", []string{"--precision", "int9"}},
			{"", "--resident-bytes", []string{"--resident-bytes", "vae=1"}},
		} {
			refusedAtOnce(t, name, c.env, c.says, append(args, c.args...)...)
		}
	}
	addresses := []string{"orchestrator", "--listen", "127.0.0.1:0", "--encoder", "127.0.0.1:1", "--denoiser", "127.0.0.1:2", "--decoder", "127.0.0.1:3"}
	for _, c := range [][]string{
		{"localhost", "--encoder", "localhost"},
		{"http://", "--decoder", "http://host:7423"},
		{"not a port", "--denoiser", "host:99999"},
		{"twice", "--decoder", "127.0.0.1:1,127.0.0.1:1"},
		{"nowhere", "--stage-ca", "/nowhere"},
		{"nowhere", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"},
		{"max-jobs", "--max-jobs", "0"},
		{"patience", "--patience", "-1s"},
		{"192.0.2.1", "--metrics-listen", "192.0.2.1:1"},
	} {
		refusedAtOnce(t, "orchestrator", "", c[0], append(addresses, c[1:]...)...)
	}
	for _, c := range [][]string{
		{"nowhere", "encoder", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"},
		{"both", "encoder", "--tls-client-ca", file},
		{"192.0.2.1", "encoder", "--listen", "192.0.2.1:1"}, // an address for documentation, which is nobody's
		{"99999", "encoder", "--listen", ":99999"},
		{"192.0.2.1", "up", "--listen", "192.0.2.1:1"},
		{"without http://", "generate", "x", "-o", image, "--server", "http://127.0.0.1:7420"},
		{"port is missing", "generate", "x", "-o", image, "--server", "localhost"},
		{"without https://", "top", "--server", "https://127.0.0.1:7420"},
	} {
		refusedAtOnce(t, c[1], "", c[0], c[1:]...)
	}
}

func refusedAtOnce(t *testing.T, name, env, says string, args ...string) {
	t.Helper()
	cmd := command(t, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if env != "" {
		cmd.Env = append(cmd.Env, env)
	}
	begin := time.Now()
	_ = cmd.Run() // the code is looked at
	took := time.Since(begin)
	lines := strings.Split(strings.TrimSpace(errOut.String()), "\n")
	last := lines[len(lines)-1]
	if code := cmd.ProcessState.ExitCode(); code != 2 || took > atOnce || !strings.HasPrefix(last, "triptych: ") || !strings.Contains(last, says) {
		t.Errorf("%s %s %q: exit code %d after %v, want 2 with %q at the end of:\n%s", env, name, args, code, took, says, errOut.String())
	}
}

// TestWrongServer: a server that is there and is spoken to in the wrong way is told apart from one that is not there.
func TestWrongServer(t *testing.T) {
	secure, web := httptest.NewUnstartedServer(nil), httptest.NewServer(nil)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	defer web.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := up(t)
	image := filepath.Join(t.TempDir(), "x.png")
	for _, c := range [][]string{
		{"the server speaks TLS", "--server", secure.Listener.Addr().String()},
		{"does not speak TLS", "--server", s.addresses["orchestrator"], "--server-ca", authority},
		{"HTTP/1", "--server", strings.TrimPrefix(web.URL, "http://")},
		{"nobody listens", "--server", "127.0.0.1:1"},
		{"no host nobody.invalid", "--server", "nobody.invalid:7420"},
	} {
		got := runCommand(t, append([]string{"generate", "x", "-o", image}, c[1:]...)...)
		if got.code != 1 || !strings.Contains(got.stderr, c[0]) {
			t.Errorf("%q: exit code %d, want 1 with %q: %s", c[1:], got.code, c[0], got.stderr)
		}
	}
}

// TestSilentServer: whoever waits for an orchestrator that cannot reach its stages is told which and why, before patience ends.
func TestSilentServer(t *testing.T) {
	s := startServer(t, command(t, "orchestrator", "--listen", "127.0.0.1:0", "--log-level", "info", "--encoder", "127.0.0.1:1", "--denoiser", "127.0.0.1:2", "--decoder", "127.0.0.1:3"))
	cmd := command(t, "generate", "fox", "--server", s.conn.Target(), "-o", filepath.Join(t.TempDir(), "out.png"))
	errOut, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(errOut)
	if told := lines.Scan() && strings.HasPrefix(lines.Text(), "waiting: encoder 127.0.0.1:1: nobody listens"); !told || strings.Count(lines.Text(), "nobody listens") != 3 {
		t.Errorf("it says %q", lines.Text())
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, errOut) // the scanner has what it took
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("exit code %d", cmd.ProcessState.ExitCode())
	}
}
