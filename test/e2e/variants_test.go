package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/matrix"
)

// variant is a container, or a restore, that differs from the laboratory's.
type variant struct {
	name    string
	options lab.Options
	restore lab.RestoreOptions
	criu    []string // lines of CRIU's configuration at the restore
	rounds  int      // checkpoints, each but the first one of a repaired container
	clones  int      // containers that are restored at once beside the running original
	hybrid  bool     // the node has both versions of control groups
	fails   []string // errors of CRIU or the runtime with which it may fail
	short   bool     // in every run of the tests, not only in that of the matrix
}

func variants() []variant {
	var list []variant
	add := func(runtime string, v variant) {
		v.options.Runtime = runtime
		list = append(list, v)
	}
	for _, runtime := range []string{"runc", "crun"} {
		runc := runtime == "runc"
		other := os.Getenv("LAB_ID") + "-another-" + runtime
		add(runtime, variant{name: "config.json of `" + runtime + " spec`, no flags", options: lab.Options{Bare: true}, short: runc})
		add(runtime, variant{name: "no cgroup namespace", options: lab.Options{HostCgroups: true}})
		add(runtime, variant{name: "root propagation private", options: lab.Options{Propagation: "private"}})
		add(runtime, variant{name: "root propagation shared", options: lab.Options{Propagation: "shared"}, short: !runc})
		add(runtime, variant{name: "another name and control group", restore: lab.RestoreOptions{ID: other, CgroupsPath: "/" + other + "-group"}})
		add(runtime, variant{name: "`mntns-compat-mode`", criu: []string{"mntns-compat-mode"}, short: runc})
		add(runtime, variant{name: "third checkpoint", rounds: 3})
		// The first clone of crun takes the processors of version 1 for itself, as the
		// original has done.
		exclusive := []string{"cpuset.cpu_exclusive: Invalid argument"}
		add(runtime, variant{name: "2 clones beside the original", clones: 2, fails: exclusive, short: runc})
		add(runtime, variant{name: "4 clones beside the original", clones: 4, fails: exclusive})
		add(runtime, variant{name: "host with both versions of control groups", hybrid: true, fails: []string{"cgroups in hybrid mode not supported"}, short: runc})
	}
	for _, oci := range []string{"crun", "runc"} {
		add("podman", variant{name: "--systemd=always --cap-add sys_admin", options: lab.Options{OCI: oci, Bare: true}, short: oci == "crun"})
	}
	return list
}

// TestVariants checkpoints and restores containers as users have them. With MATRIX=FILE
// it writes the results to a file of this name in the folder "variants" beside it.
func TestVariants(t *testing.T) {
	requireHook(t)
	file := os.Getenv("MATRIX")
	var rows []matrix.Variant
	for _, v := range variants() {
		if file == "" && !v.short {
			continue
		}
		t.Run(v.engine()+": "+v.name, func(t *testing.T) {
			row := v.newRow() // stays if the test ends early
			defer func() { rows = append(rows, row) }()
			v.run(t, &row)
			t.Logf("mounts: %s; accesses: %s; units: %s", row.Mounts, row.Served, row.Units)
		})
	}
	if file != "" {
		if err := matrix.Save(filepath.Join(filepath.Dir(file), "variants", filepath.Base(file)), rows); err != nil {
			t.Fatal(err)
		}
	}
}

func (v variant) engine() string {
	if v.options.OCI != "" {
		return v.options.Runtime + " with " + v.options.OCI
	}
	return v.options.Runtime
}

func (v variant) newRow() matrix.Variant {
	row := runtimeRow{name: v.engine(), programs: strings.Fields(v.options.Runtime + " " + v.options.OCI)}.newRow()
	return matrix.Variant{
		Node: row.Node, Engine: row.Engine, Name: v.name, Versions: row.Versions, Date: row.Date,
		Mounts: "FAILED", Served: matrix.NotRun, Units: matrix.NotRun,
	}
}

// run restores a container once or more, or some clones of it.
func (v variant) run(t *testing.T, row *matrix.Variant) {
	if v.hybrid && !lab.HasVersion1(t) {
		row.Mounts = matrix.NotRun
		t.Log("not run: this host has version 2 of control groups alone")
		return
	}
	if v.hybrid {
		lab.UseVersion1(t)
	}
	v.options.MountRateLimit = true // as users have it
	c, err := lab.TryStart(t, v.options)
	if v.refused(t, err, row) {
		return
	}
	c.Populate(t)
	if v.clones > 0 {
		v.restoreClones(t, c, row)
		return
	}
	for round := range max(v.rounds, 1) {
		last := round+1 >= v.rounds
		s := checkpointOf(t, c)
		v.install(t)
		r, err := s.TryRestore(t, v.restore)
		if err != nil {
			s.RemoveFailed(t)
		}
		if v.refused(t, err, row) {
			return
		}
		logIfFailed(t, r)
		c = r.Container
		v.check(t, c, s.units, row)
		v.touch(t, c, row, last)
	}
}

// restoreClones restores clones of a container that goes on running. Its mounts keep
// their numbers.
func (v variant) restoreClones(t *testing.T, c *lab.Container, row *matrix.Variant) {
	t.Helper()
	units, mounts := c.Units(t), c.MountTable(t)
	cp := c.CheckpointRunning(t)
	v.install(t)
	var clones []*lab.Checkpoint
	for range v.clones {
		clones = append(clones, cp.Clone(t))
	}
	restored, err := lab.RestoreAll(t, clones)
	if v.refused(t, err, row) {
		return
	}
	if now := c.MountTable(t); now != mounts || c.HasReport() {
		t.Errorf("the original has a report (%t), or other mounts than before:\n%s\nbefore\n%s", c.HasReport(), now, mounts)
	}
	sharing := false
	for _, r := range restored {
		logIfFailed(t, r)
		v.check(t, r.Container, units, row)
		shared := r.OwnGroup(t) == c.OwnGroup(t)
		if warned := strings.Contains(r.Log, "the first one of another container"); warned != shared {
			t.Errorf("in the control group of the original: %t; warned of it: %t\n%s", shared, warned, hookLines(r.Log))
		}
		sharing = sharing || shared
		v.touch(t, r.Container, row, true)
	}
	if sharing {
		row.Mounts += "; the runtime restores them into the original's control group"
	}
	v.checkUnits(t, c, units, row)
	v.touch(t, c, row, true)
}

// install makes the program the action script of the next restore.
func (v variant) install(t *testing.T) {
	t.Helper()
	forgetReports(t)
	lab.InstallActionScript(t, lab.Hook(), v.criu...)
}

// refused reports whether there is an error, and whether it is one of those that CRIU or
// the runtime may have.
func (v variant) refused(t *testing.T, err error, row *matrix.Variant) bool {
	t.Helper()
	if err == nil {
		return false
	}
	for _, text := range v.fails {
		if strings.Contains(err.Error(), text) {
			row.Mounts = "fails: " + text
			return true
		}
	}
	t.Error(err)
	return true
}

// check checks the report and the units of a restored container.
func (v variant) check(t *testing.T, c *lab.Container, units map[string]lab.Unit, row *matrix.Variant) {
	t.Helper()
	row.Mounts = "FAILED"
	report := c.ReadReport(t)
	wanted := map[string]string{"systemd": "preserved", "direct": "reloaded", "indirect": "healthy"}
	if v.clones > 0 {
		wanted["systemd"] = "reexecuted"
	}
	count := map[string]int{}
	for _, m := range report.Mounts {
		kind := m.Type
		if m.Master.Kind == "systemd" {
			kind = "systemd"
		}
		if m.Outcome != wanted[kind] {
			t.Errorf("report: %s (%s): %s (%s), want %s", m.Path, kind, m.Outcome, m.Reason, wanted[kind])
		}
		count[kind]++
	}
	var text []string
	for _, kind := range []string{"systemd", "direct", "indirect"} {
		if count[kind] == 0 {
			t.Errorf("report: no mount of the kind %s", kind)
		}
		text = append(text, fmt.Sprintf("%s: %d %s", kind, count[kind], wanted[kind]))
	}
	v.checkUnits(t, c, units, row)
	if !t.Failed() {
		row.Mounts = strings.Join(text, ", ")
	}
}

// checkUnits compares units with former ones. crun, and runc since 1.2 for a container
// without a cgroup namespace, restore all processes into one control group, which also
// without the program ends init.scope.
func (v variant) checkUnits(t *testing.T, c *lab.Container, units map[string]lab.Unit, row *matrix.Variant) {
	t.Helper()
	oneGroup := slices.Contains([]string{v.options.Runtime, v.options.OCI}, "crun") ||
		v.options.HostCgroups && !strings.HasPrefix(lab.Version("runc"), "1.1.")
	row.Units = "identical"
	for _, change := range changedUnits(units, c.Settle(t)) {
		if oneGroup && strings.HasPrefix(change, "init.scope: ") {
			row.Units = "identical, but init.scope"
			continue
		}
		t.Errorf("a unit has changed: %s", change)
		row.Units = "FAILED"
	}
}

// touch accesses all automounts. If not for the last time, it leaves out those that
// could not be dumped when mounted.
func (v variant) touch(t *testing.T, c *lab.Container, row *matrix.Variant, last bool) {
	t.Helper()
	have := lab.Autofs(t, c.PID)
	accesses := slices.DeleteFunc(slices.Clone(lab.Accesses), func(a lab.Access) bool {
		direct := strings.HasPrefix(a.Path, lab.Direct+"/") || strings.HasPrefix(a.Path, lab.Direct2+"/")
		return strings.HasPrefix(a.Path, lab.Binfmt) && have[lab.Binfmt] == nil || direct && !last
	})
	served := 0
	for i, o := range c.TouchAccesses(t, accesses, lab.TouchLimit) {
		if a := accesses[i]; a.Answers(o) {
			served++
		} else {
			t.Errorf("%s (%s): %s; want %q", a.Path, a.About, o, a.Content)
		}
	}
	row.Served = fmt.Sprintf("%d of %d served", served, len(accesses))
	checkNoWaiters(t, c)
	c.Settle(t)
}
