package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// correctVariable makes the test binary correct the numbers of the systemd with that pid
// to those in correctFile.
const (
	correctVariable = "TEST_CORRECT_SYSTEMD"
	correctFile     = "/run/correct.json"
)

func init() {
	pid, err := strconv.Atoi(os.Getenv(correctVariable))
	if err != nil {
		return
	}
	var how systemd.ReexecuteOptions
	text, err := os.ReadFile(correctFile)
	if err == nil {
		err = json.Unmarshal(text, &how)
	}
	var p *nsenter.Process
	if err == nil {
		p, err = nsenter.Open(pid)
	}
	if err == nil {
		_, err = systemd.Reexecute(context.Background(), owner.Of(p).Init(), how)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

const (
	manyTimers     = 900 // each with its service: 1,800 units
	manyAutomounts = 150
)

// largeContainer returns units of a large container: units that systemd has loaded, and automounts
// with names that need escaping. One more is loaded and not active.
func largeContainer() (files map[string]string, paths []string) {
	const dir = "/etc/systemd/system/"
	var timers []string
	for i := range manyTimers {
		timers = append(timers, fmt.Sprintf("many@%d.timer", i))
	}
	files = map[string]string{
		dir + "many@.timer":    "[Timer]\nOnActiveSec=30d\n",
		dir + "many@.service":  "[Service]\nExecStart=/bin/true\n",
		dir + "many.target":    "[Unit]\nAfter=dead.automount\nWants=" + strings.Join(timers, " ") + "\n",
		dir + "dead.automount": "[Automount]\nWhere=/dead\n",
		dir + "dead.mount":     "[Mount]\nWhat=tmpfs\nWhere=/dead\nType=tmpfs\n",
	}
	for i := range manyAutomounts {
		path := fmt.Sprintf("/many/%d a-b_ä@:.x", i)
		paths = append(paths, path)
		files[dir+lab.UnitName(path, "automount")] = "[Automount]\nWhere=" + path + "\n"
		files[dir+lab.UnitName(path, "mount")] = "[Mount]\nWhat=tmpfs\nWhere=" + path + "\nType=tmpfs\nOptions=size=1m\n"
	}
	return files, paths
}

// TestReexecutedLarge corrects the numbers of systemds with more than 1 MB of state,
// whose automounts all have the same stale number. Meanwhile the program is killed where
// the kernel may interrupt a write: between two pages.
func TestReexecutedLarge(t *testing.T) {
	requireHook(t)
	for _, suite := range []string{"bookworm", "sid"} { // one does not seal its state, the other does
		t.Run(suite, func(t *testing.T) { reexecutedLarge(t, suite) })
	}
}

// startLarge starts a large container, whose systemd remembers the stale numbers in
// walk.before after a correction to them.
func startLarge(t *testing.T, suite string) (w *walk, paths []string) {
	t.Helper()
	files, paths := largeContainer()
	c := lab.Start(t, lab.Options{Systemd: suite, Plain: true, Files: files})
	start := []string{"systemctl", "start", "many.target"}
	for _, path := range paths {
		start = append(start, lab.UnitName(path, "automount"))
	}
	c.Run(t, start...)
	pid1, err := nsenter.Open(c.PID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pid1.Close() })
	w = &walk{r: &lab.Restored{Container: c}, pid1: pid1, version: c.SystemdVersion(t)}
	mounts := lab.Autofs(t, c.PID)
	for _, path := range paths {
		if mounts[path] == nil {
			t.Fatalf("%s is not mounted", path)
		}
		pipe := pipeOf(t, mounts[path])
		w.now = append(w.now, systemd.ServedMount{Path: path, Pipe: pipe, Device: unix.Mkdev(0, uint32(mounts[path].Minor))})
		w.before = append(w.before, systemd.ServedMount{Path: path, Pipe: pipe, Device: unix.Mkdev(0, freeMinor)})
	}
	return w, paths
}

// freeMinor is the minor of a device number that is free, and the next one as well.
const freeMinor = 1<<20 - 3

func reexecutedLarge(t *testing.T, suite string) {
	w, paths := startLarge(t, suite)
	c := w.r.Container
	units := unitList(t, c)
	var others []systemd.ServedMount
	for _, mount := range w.now {
		others = append(others, systemd.ServedMount{Path: mount.Path, Pipe: mount.Pipe, Device: unix.Mkdev(0, freeMinor+1)})
	}
	begin := time.Now()
	w.correct(t, others)
	took := time.Since(begin)
	checkRunsOn(t, w.r)
	size, added, _ := w.correctTraced(t, w.before)
	t.Logf("%d units, %d bytes of state, %d bytes added for %d automounts; corrected in %s",
		len(units), size, added, len(paths), took.Round(time.Millisecond))
	if len(units) < 1900 || size < 1<<20 || added < 2*4096 {
		t.Error("too small for this test")
	}
	checkRunsOn(t, w.r)
	if o := c.Try(t, 300*time.Millisecond, "ls", paths[1]+"/."); !o.Waiting {
		t.Errorf("%s, systemd has a wrong number: %s; want it to hang", paths[1], o)
	}

	// The limit ends the first write between two pages, and the program is killed before
	// the rest is written.
	cut := (size+4095)/4096*4096 + 4096
	if _, _, killed := w.correctTraced(t, w.now, "-e", "inject=pwrite64:signal=KILL:when=2", "prlimit", "--fsize="+strconv.Itoa(cut)); !killed {
		t.Error("the program was not killed at its second write")
	}
	checkRunsOn(t, w.r)
	edit := w.correct(t, nil)
	old, fresh := remembered(edit, w.before), remembered(edit, w.now)
	t.Logf("killed between two pages: %d of %d have their new number", fresh, len(paths))
	if old < 10 || fresh < 10 || old+fresh != len(paths) {
		t.Errorf("%d have their old number, %d their new one", old, fresh)
	}
	checkRunsOn(t, w.r)

	edit = w.correct(t, w.now)
	if countCorrected(edit) != old || len(edit.Units) != len(paths) { // dead.automount has no pipe
		t.Errorf("%d of %d units are corrected, want %d of %d", countCorrected(edit), len(edit.Units), old, len(paths))
	}
	for i := range edit.Units {
		if u := &edit.Units[i]; u.Waiting != (u.Unit == lab.UnitName(paths[1], "automount")) {
			t.Errorf("%s: waiting requests: %v", u.Unit, u.Waiting)
		}
	}
	checkRunsOn(t, w.r)
	c.Run(t, "systemctl", "start", lab.UnitName(paths[1], "mount")) // answers the request, as a repair does
	for i := 0; i < len(paths); i += 10 {                           // those that were corrected first, and those after the kill
		if out := c.Run(t, "stat", "-f", "-c", "%T", paths[i]+"/."); out != "tmpfs\n" {
			t.Errorf("%s: %s", paths[i], out)
		}
	}
	checkNoWaiters(t, c)
	c.CheckUntouched(t)
	for _, change := range lab.Changes(units, unitList(t, c)) {
		t.Errorf("a unit has changed: %s", change)
	}
}

// unitList returns the names and states of all units except those that the accesses
// start: for 2,000 units "systemctl show" takes seconds.
func unitList(t *testing.T, c *lab.Container) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(c.Run(t, "systemctl", "list-units", "--all", "--full", "--plain", "--no-legend")) {
		if fields := strings.Fields(line); len(fields) >= 4 && !strings.HasPrefix(line, "many-") {
			list = append(list, strings.Join(fields[:4], " "))
		}
	}
	return list
}

var writes = regexp.MustCompile(`pwrite64\(.*, (\d+), (\d+)\) += (\d+)\n`)

// correctTraced corrects systemd's numbers in a process under strace, and returns the
// length of systemd's state and the number of bytes of the first write.
func (w *walk) correctTraced(t *testing.T, served []systemd.ServedMount, options ...string) (size, added int, killed bool) {
	t.Helper()
	text, err := json.Marshal(systemd.ReexecuteOptions{Version: w.version, Served: served})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(correctFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(lab.Scratch(t, w.r.ID+"-strace"), "pwrite64")
	args := append([]string{"-f", "-qq", "-o", log, "-e", "trace=pwrite64"}, options...)
	cmd := exec.Command("strace", append(args, os.Args[0])...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", correctVariable, w.r.PID))
	out, err := cmd.CombinedOutput()
	killed = err != nil && strings.Contains(err.Error(), "killed")
	if err != nil && !killed {
		t.Fatalf("correct systemd under strace: %v: %s", err, out)
	}
	lines, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	first := writes.FindStringSubmatch(string(lines))
	if first == nil {
		t.Fatalf("no write to systemd's state:\n%s", lines)
	}
	size, _ = strconv.Atoi(first[2])
	added, _ = strconv.Atoi(first[3])
	return size, added, killed
}
