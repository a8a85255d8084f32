package deviceclaim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/triptych-serving/triptych/stage"
)

// What the test binary does as another process: it joins the directory and obeys.
const (
	rootKey   = "DEVICELEASE_TEST_ROOT"
	budgetKey = "DEVICELEASE_TEST_BUDGET"
)

func TestMain(m *testing.M) {
	if root := os.Getenv(rootKey); root != "" {
		if err := obey(root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// obey does what lines of standard input say and answers each with a line.
func obey(root string) error {
	budget, err := strconv.ParseInt(os.Getenv(budgetKey), 10, 64)
	if err != nil {
		return err
	}
	l, err := Open(root, "cpu:0", budget)
	if err != nil {
		return err
	}
	fmt.Println("open")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		word, arg, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil {
			return err
		}
		switch word {
		case "reserve":
			fmt.Println(l.Reserve(n))
		case "race":
			fmt.Println(race(l, budget, int(n)))
		case "id":
			fmt.Println(id(l))
		case "freeze": // in the middle of a change
			if _, err := lock(l.dir); err != nil {
				return err
			}
			fmt.Println("frozen")
		}
	}
	return nil
}

// race reserves and gives back n times, and reports the first time that more than the budget was reserved by all.
func race(l *Claim, budget int64, n int) error {
	for i := range n {
		bytes := int64(i*7919%60 + 1)
		if l.Reserve(bytes) != nil {
			continue
		}
		if all := l.Observe("", stage.Want{}).ForeignBytes + l.own.bytes; all > budget {
			return fmt.Errorf("%d bytes are reserved of %d", all, budget)
		}
		l.Release(bytes)
	}
	return nil
}

// process is another process.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func launch(t *testing.T, root string, budget int64) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), rootKey+"="+root, budgetKey+"="+fmt.Sprint(budget), "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	if got := p.answer(t); got != "open" {
		t.Fatalf("the process said %q", got)
	}
	return p
}

func (p *process) say(t *testing.T, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		t.Fatal(err)
	}
}

func (p *process) answer(t *testing.T) string {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("the process ended: %v", p.out.Err())
	}
	return p.out.Text()
}

// kill is kill -9. Idempotent.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// TestKilled: the bytes of a process that is killed are back at once, also if it held the lock.
func TestKilled(t *testing.T) {
	root := t.TempDir()
	l := join(t, root, 100)
	for _, frozen := range []bool{false, true} {
		p := launch(t, root, 100)
		p.say(t, "reserve 80")
		if got := p.answer(t); got != "<nil>" {
			t.Fatal(got)
		}
		if got := busy(t, l.Reserve(30)); got.OthersBytes != 80 || got.AvailableBytes != 20 {
			t.Errorf("beside the living process: %+v", got)
		}
		if frozen {
			p.say(t, "freeze 0")
			p.answer(t)
		}
		p.kill()
		reserve(t, l, 100)
		l.Release(100)
	}
}

func id(l *Claim) string { return l.Observe("", stage.Want{}).Claim }

// TestID: processes that share a directory tell one id, also if it was removed meanwhile, and those of another directory another.
func TestID(t *testing.T) {
	root := t.TempDir()
	here := join(t, root, 100)
	told := func(p *process) string {
		t.Helper()
		p.say(t, "id 0")
		return p.answer(t)
	}
	beside, elsewhere := launch(t, root, 100), launch(t, t.TempDir(), 100)
	first := id(here)
	if len(first) < 16 || told(beside) != first || told(elsewhere) == first {
		t.Errorf("ids %q here, %q beside, %q elsewhere", first, told(beside), told(elsewhere))
	}
	other, err := Open(root, "cpu:1", 100)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if id(other) == first {
		t.Error("two devices have one id")
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if second := told(beside); second == first || id(here) != second {
		t.Errorf("ids %q here and %q beside, %q before the directory was removed", id(here), second, first)
	}
}

// TestBadID: a directory that cannot tell an id is refused.
func TestBadID(t *testing.T) {
	root := t.TempDir()
	if err := join(t, root, 100).Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "cpu:0", idName)
	if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root, "cpu:0", 100); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Open: %v", err)
	}
}

// TestRace: eight processes reserve and give back at once, and together never have more than the budget.
func TestRace(t *testing.T) {
	const budget, processes, times = 100, 8, 60
	root := t.TempDir()
	var all []*process
	for range processes {
		all = append(all, launch(t, root, budget))
	}
	for _, p := range all {
		p.say(t, "race %d", times)
	}
	for _, p := range all {
		if got := p.answer(t); got != "<nil>" {
			t.Error(got)
		}
	}
	all[0].kill()
	for _, p := range all[1:] {
		p.say(t, "reserve 1")
		if got := p.answer(t); got != "<nil>" {
			t.Error(got)
		}
	}
	if got := busy(t, join(t, root, budget).Reserve(budget)); got.OthersBytes != processes-1 {
		t.Errorf("%+v, want one byte of each living process", got)
	}
}
