package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Touchers are processes of the container that read every access repeatedly for
// touchTime, after [Touchers.Release].
type Touchers struct {
	root  string // the container's root folder
	count int
}

// touchTime is how long touchers run.
const touchTime = 2 * time.Second

const (
	touchFolder = "/touchers"
	// ToucherUnit is the service of the touchers.
	ToucherUnit = "touchers.service"
)

// ToucherFiles are the files of a container with touchers. It needs
// [Options].Roles, too.
func ToucherFiles(count int, accesses []Access) map[string]string {
	var list strings.Builder
	for _, a := range accesses {
		fmt.Fprintf(&list, "%s\t%s\n", a.Path, a.Content)
	}
	return map[string]string{
		touchFolder + "/list": list.String(),
		"/etc/systemd/system/" + ToucherUnit: fmt.Sprintf(
			"[Service]\nExecStart=/bin/sh -c 'for n in $(seq %d); do %s touch $n & done; wait'\n", count, RoleProgram),
	}
}

// StartTouchers starts the processes, which wait for [Touchers.Release].
func (c *Container) StartTouchers(t testing.TB, count int) *Touchers {
	t.Helper()
	c.Run(t, "systemctl", "start", ToucherUnit)
	w := &Touchers{root: filepath.Join(c.Bundle, "rootfs"), count: count}
	for n := 1; n <= count; n++ {
		waitForFile(t, w.file(n, "ready"), AnswerLimit)
	}
	return w
}

// Release starts the touchers' reads; it is meant for [RestoreOptions].Before.
func (w *Touchers) Release(t testing.TB) {
	t.Helper()
	for n := 1; n <= w.count; n++ {
		for _, name := range []string{"errors", "done"} {
			if err := os.Remove(w.file(n, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(w.startFile(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(w.startFile()) })
}

// Check waits until the touchers have ended, and reports reads that failed, and touchers
// that did not end. It describes the slowest read.
func (w *Touchers) Check(t testing.TB) (slowest string) {
	t.Helper()
	var longest time.Duration
	deadline := time.Now().Add(touchTime + AnswerLimit)
	for n := 1; n <= w.count; n++ {
		waitForFile(t, w.file(n, "done"), time.Until(deadline))
		text, err := os.ReadFile(w.file(n, "errors"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if lines := strings.Split(strings.TrimSpace(string(text)), "\n"); lines[0] != "" {
			t.Errorf("process %d was refused %d times; first and last, in ms after its start:\n%s\n%s",
				n, len(lines), lines[0], lines[len(lines)-1])
		}
		done, _ := os.ReadFile(w.file(n, "done"))
		took, what, _ := strings.Cut(string(done), " ")
		if d, err := time.ParseDuration(took); err == nil && d > longest {
			longest, slowest = d, took+" "+strings.TrimSpace(what)
		}
	}
	return slowest
}

func (w *Touchers) startFile() string { return filepath.Join(w.root, touchFolder, "go") }

func (w *Touchers) file(n int, name string) string {
	return filepath.Join(w.root, touchFolder, strconv.Itoa(n)+"."+name)
}

func waitForFile(t testing.TB, path string, limit time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("no file %s after %s", path, limit)
			return
		}
	}
}

// runToucher is one toucher; the argument is its number.
func runToucher(args []string) error {
	runtime.GOMAXPROCS(1) // eight touchers share the machine with systemd
	w := &Touchers{root: "/"}
	number, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	text, err := os.ReadFile(touchFolder + "/list")
	if err != nil {
		return err
	}
	var accesses []Access
	for line := range strings.Lines(string(text)) {
		path, content, _ := strings.Cut(strings.TrimSpace(line), "\t")
		accesses = append(accesses, Access{Path: path, Content: content})
	}
	if err := os.WriteFile(w.file(number, "ready"), nil, 0o644); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(w.startFile()); err == nil {
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	return w.touch(number, accesses)
}

// touch reads all accesses in a loop, and writes down each one that fails.
func (w *Touchers) touch(number int, accesses []Access) error {
	refused, err := os.OpenFile(w.file(number, "errors"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer refused.Close()
	begin := time.Now()
	var slowest time.Duration
	var where string
	rounds := 0
	for ; time.Since(begin) < touchTime; rounds++ {
		for i := range accesses {
			a := accesses[(i+number)%len(accesses)]
			before := time.Now()
			text, err := os.ReadFile(a.Path)
			if took := time.Since(before); took > slowest {
				slowest, where = took, fmt.Sprintf("for %s after %s", a.Path, before.Sub(begin))
			}
			if got := strings.TrimSpace(string(text)); err != nil || got != a.Content {
				fmt.Fprintf(refused, "%.1f %s: %q %v\n", float64(before.Sub(begin).Microseconds())/1000, a.Path, got, err)
			}
		}
		time.Sleep(time.Millisecond)
	}
	done := w.file(number, "done")
	if err := os.WriteFile(done+".new", fmt.Appendf(nil, "%s %s, %d rounds\n", slowest, where, rounds), 0o644); err != nil {
		return err
	}
	return os.Rename(done+".new", done)
}
