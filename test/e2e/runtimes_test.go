package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/matrix"
)

// runtimeRow is an engine that can restore a container.
type runtimeRow struct {
	name     string
	options  lab.Options
	programs []string // whose versions matter, besides CRIU
	own      string   // the engine's own option for an action script
	noHooks  string   // the reason if the engine has no OCI hooks
	short    bool     // in every run of the tests, not only in that of the matrix
}

var runtimeRows = []runtimeRow{
	{name: "runc", options: lab.Options{Runtime: "runc"}, programs: []string{"runc"}, own: "runc.conf"},
	{name: "crun", options: lab.Options{Runtime: "crun"}, programs: []string{"crun"}, own: "crun.conf", short: true},
	{name: "podman with crun", options: lab.Options{Runtime: "podman", OCI: "crun"}, programs: []string{"podman", "crun"}, own: "crun.conf", short: true},
	{name: "podman with crun, archive", options: lab.Options{Runtime: "podman", OCI: "crun", Archive: true}, programs: []string{"podman", "crun"}, own: "crun.conf"},
	{name: "podman with runc", options: lab.Options{Runtime: "podman", OCI: "runc"}, programs: []string{"podman", "runc"}, own: "runc.conf"},
	{name: "podman with runc, archive", options: lab.Options{Runtime: "podman", OCI: "runc", Archive: true}, programs: []string{"podman", "runc"}, own: "runc.conf"},
	{name: "containerd (Go client)", options: lab.Options{Runtime: "containerd"}, programs: []string{"containerd", "runc"}, own: "runc.conf", short: true},
	{name: "LXC", options: lab.Options{Runtime: "lxc"}, programs: []string{"lxc-checkpoint"}, own: "`-A`", noHooks: "LXC has none"},
	{name: "criu", options: lab.Options{Runtime: "criu"}, own: "`--action-script`", noHooks: "criu has none", short: true},
}

// TestRuntimes restores under every engine, without the program and with it. With
// MATRIX=FILE it does so for every version of systemd and every channel, and writes the
// results to that file.
func TestRuntimes(t *testing.T) {
	requireHook(t)
	file := os.Getenv("MATRIX")
	var rows []matrix.Row
	for _, r := range runtimeRows {
		if file == "" && !r.short {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			row := r.newRow()
			suites := systemdVersions
			if file == "" {
				suites = suites[:1]
			}
			for _, suite := range suites {
				r.restoreContainer(t, suite, &row)
			}
			if file != "" {
				r.tryChannels(t, &row)
			}
			rows = append(rows, row)
		})
	}
	if file != "" {
		if err := matrix.Save(file, rows); err != nil {
			t.Fatal(err)
		}
	}
}

func (r runtimeRow) newRow() matrix.Row {
	versions := []string{"CRIU " + lab.Version("criu")}
	for _, program := range r.programs {
		versions = append(versions, strings.TrimSuffix(program, "-checkpoint")+" "+lab.Version(program))
	}
	return matrix.Row{
		Node: lab.NodeName(), Engine: r.name, Versions: strings.Join(versions, ", "),
		Date: time.Now().UTC().Format(time.DateOnly), Control: matrix.NotRun,
	}
}

// restoreContainer fills one cell: it restores a container without the program, which
// shows the hang and the changes by the engine itself, and then with it.
func (r runtimeRow) restoreContainer(t *testing.T, suite string, row *matrix.Row) {
	t.Run(suite, func(t *testing.T) {
		// This text stays if the test ends early.
		cell := &matrix.Entry{Column: "container of Debian " + suite, Text: "FAILED"}
		defer func() { row.Cells = append(row.Cells, *cell) }()

		options := r.options
		options.Systemd, options.MountRateLimit = suite, true // as users have it
		c := lab.Start(t, options)
		cell.Column = containerVersions(t, c)
		c.Populate(t)
		s := &snapshot{units: c.Units(t)}
		s.Checkpoint = c.Checkpoint(t)

		lab.InstallActionScript(t, "")
		if r, err := s.TryRestore(t, lab.RestoreOptions{}); err == nil {
			r.Kill(t)
			t.Error("restored without the control groups that systemd watches")
		} else if !strings.Contains(err.Error(), noGroup) {
			t.Errorf("want the error %q: %v", noGroup, err)
		}
		s.RemoveFailed(t)
		stale := restoreStale(t, s)
		noticed := changedUnits(s.units, stale.Settle(t))
		control := checkControl(t, stale)
		if row.Control != control && row.Control != matrix.NotRun {
			control = row.Control + "; systemd of " + suite + ": " + control
		}
		row.Control = control
		if len(noticed) > 0 {
			addNote(row, "also without the program these units are not as before: "+strings.Join(unitNames(noticed), ", "))
		}
		stale.Kill(t)

		forgetReports(t)
		restored := restoreWithHook(t, s, lab.RestoreOptions{})
		for _, change := range changedUnits(s.units, restored.Settle(t)) {
			if !slices.Contains(noticed, change) {
				t.Errorf("a unit has changed: %s", change)
			}
		}
		checkPreserved(t, restored)
		outcomes := countOutcomes(t, restored.ReadReport(t))
		checkWorkingService(t, restored, s.units["worker.service"].MainPID)
		restored.CheckAnswers(t, lab.Accesses)
		checkNoWaiters(t, restored.Container)
		checkUncovered(t, restored.Container)
		lab.WaitNoneRunning(t, 0)
		if !t.Failed() {
			cell.Text = outcomes
		}
		restored.Kill(t)
	})
}

// containerVersions returns the versions of the masters in a container.
func containerVersions(t *testing.T, c *lab.Container) string {
	t.Helper()
	fields := func(args ...string) []string { return append(strings.Fields(c.Run(t, args...)), "", "", "", "") }
	// "systemd 252 (252.39-1~deb12u1)", "Linux automount version 5.1.8"
	return "systemd " + fields("systemctl", "--version")[1] + ", autofs " + fields("sh", "-c", "automount --version 2>&1 | grep version")[3]
}

// checkControl touches the stale automounts of a container that was restored without the
// program, and describes the result.
func checkControl(t *testing.T, r *lab.Restored) string {
	t.Helper()
	hang, stale := 0, 0
	for i, o := range touchStale(t, r) {
		switch a := lab.Accesses[i]; {
		case a.Stale:
			stale++
			if o.Waiting {
				hang++
			} else {
				t.Errorf("without the program: %s (%s): %s; want it stuck in autofs_wait", a.Path, a.About, o)
			}
		case !a.Answers(o):
			t.Errorf("without the program: %s (%s): %s; want %q", a.Path, a.About, o, a.Content)
		}
	}
	return fmt.Sprintf("the restore fails; with the control groups created: %d of %d accesses hang", hang, stale)
}

// countOutcomes counts the outcomes, and fails on those that a restore on a quiet host
// must not have.
func countOutcomes(t *testing.T, report lab.Report) string {
	t.Helper()
	count := make(map[string]int)
	for _, m := range report.Mounts {
		count[m.Outcome]++
	}
	var text []string
	for _, outcome := range []string{"preserved", "reloaded", "healthy"} {
		if count[outcome] == 0 {
			t.Errorf("report: no mount is %s", outcome)
		}
		text = append(text, fmt.Sprintf("%d %s", count[outcome], outcome))
		delete(count, outcome)
	}
	for outcome, n := range count {
		t.Errorf("report: %d mounts are %s", n, outcome)
	}
	return strings.Join(text, ", ")
}

func addNote(row *matrix.Row, note string) {
	if !slices.Contains(row.Notes, note) {
		row.Notes = append(row.Notes, note)
	}
}

// unitNames returns the units in a list of changes.
func unitNames(changes []string) []string {
	names := make([]string, len(changes))
	for i, change := range changes {
		names[i], _, _ = strings.Cut(change, ": ")
	}
	return names
}

// forgetReports removes the reports of earlier restores.
func forgetReports(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll("/run/autofs-restore-hook/reports"); err != nil {
		t.Fatal(err)
	}
}

// tryChannels restores with each channel alone.
func (r runtimeRow) tryChannels(t *testing.T, row *matrix.Row) {
	add := func(column, text string) {
		row.Channels = append(row.Channels, matrix.Entry{Column: column, Text: text})
	}
	t.Run("action scripts", func(t *testing.T) {
		everywhere, own := "FAILED", "FAILED"
		defer func() {
			add("action script in `default.conf`", everywhere)
			add("action script by the engine's own setting", r.own+": "+own)
		}()
		s := take(t, r.options)
		lab.InstallActionScript(t, lab.Hook())
		if everywhere = channelWorks(t, s, lab.RestoreOptions{}, checkPreserved); everywhere != "works" {
			t.Errorf("an action script in default.conf: %s", everywhere)
		}
		lab.InstallActionScript(t, "")
		own = channelWorks(t, s, lab.RestoreOptions{Script: lab.Hook()}, checkPreserved)
	})
	t.Run("OCI hook", func(t *testing.T) {
		const column = "OCI hook"
		if r.noHooks != "" {
			add(column, r.noHooks)
			return
		}
		result := "FAILED"
		defer func() { add(column, result) }()
		options := r.options
		if options.Runtime == "podman" {
			options.HooksDir = hooksDir(t)
		} else {
			options.Hooks = withHook().Hooks
		}
		lab.InstallActionScript(t, "")
		result = channelWorks(t, take(t, options), lab.RestoreOptions{}, checkReexecuted) // the repair is after the resume
	})
}

// channelWorks restores, and returns whether the program was called. If it was, it must
// have repaired the container.
func channelWorks(t *testing.T, s *snapshot, options lab.RestoreOptions, check func(*testing.T, *lab.Restored)) string {
	t.Helper()
	forgetReports(t)
	r, err := s.TryRestore(t, options)
	if err != nil && strings.Contains(err.Error(), noGroup) {
		return "not called: the restore fails"
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Kill(t)
	lab.WaitNoneRunning(t, watcherLimit)
	if reports, _ := filepath.Glob("/run/autofs-restore-hook/reports/*"); len(reports) == 0 {
		return "not called"
	}
	check(t, r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	if t.Failed() {
		return "FAILED"
	}
	return "works"
}

// hooksDir returns a folder with the hooks.d files of an installation.
func hooksDir(t *testing.T) string {
	t.Helper()
	files, err := manifests.Hooks(lab.Hook())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), []byte(f.Data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
