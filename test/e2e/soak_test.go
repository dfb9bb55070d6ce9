package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// soakCure is a way to repair.
type soakCure struct {
	name     string
	stages   string // of CRIU at which the program runs, "" for none
	occupied bool
	strategy string // of the repair by hand, "" for none
	want     string // the outcome of systemd's mounts
}

// soakCures are used one after the other.
var soakCures = []soakCure{
	{"preserved", "pre-restore|post-setup-namespaces|pre-resume|post-resume", false, "", "preserved"},
	{"reexecuted", "pre-restore|post-setup-namespaces|pre-resume|post-resume", true, "", "reexecuted"},
	{"reexecuted alone", "post-resume", false, "", "reexecuted"},
	{"reexecuted late", "", false, "reexec", "reexecuted"},
	{"restarted late", "", false, "restart", "restarted"},
}

// TestSoak checkpoints and restores one container many times (SOAK_CYCLES), with each of
// the cures in turn, and compares the numbers of files, mounts and processes before and
// after.
func TestSoak(t *testing.T) {
	requireHook(t)
	cycles := lab.IntFromEnvironment(t, "SOAK_CYCLES", 1, len(soakCures))
	free := lab.FreeNumber(t)
	c := lab.Start(t, lab.Options{})
	c.Populate(t)
	units := c.Units(t)
	var first counts
	done := 0
	for ; done < cycles && !t.Failed(); done++ {
		if deadline, ok := t.Deadline(); ok && time.Until(deadline) < crashReserve {
			t.Errorf("no time for cycle %d and those after it", done)
			break
		}
		cure := soakCures[done%len(soakCures)]
		r := soakCycle(t, c, cure)
		c = r.Container
		switch now := countAll(t, c, r); {
		case done == len(soakCures)-1 || cycles < len(soakCures):
			first = now
			t.Logf("after cycle %d: %s", done+1, now)
		case done == cycles-1 || t.Failed():
			t.Logf("after cycle %d: %s", done+1, now)
			fallthrough
		default:
			if first.mounts != 0 && now.exceeds(first) {
				t.Errorf("after cycle %d (%s): %s; after cycle %d: %s", done+1, cure.name, now, len(soakCures), first)
			}
		}
	}
	c.CheckAnswers(t, lab.Accesses)
	checkUncovered(t, c)
	for _, change := range changedUnits(units, c.Units(t)) {
		if strings.Contains(change, "failed") {
			t.Errorf("a unit failed: %s", change)
		}
	}
	c.Kill(t)
	lab.WaitNumberFree(t, free, helperLimit)
	t.Logf("%d cycles", done)
}

// soakCycle checkpoints and restores the container, and repairs it in the given way.
func soakCycle(t *testing.T, c *lab.Container, cure soakCure) *lab.Restored {
	t.Helper()
	highest := highestDevice(t, c)
	s := &snapshot{Checkpoint: c.Checkpoint(t), highest: highest}
	lab.InstallWrappedScript(t, lab.Hook(), s.GroupsShell()+"case $CRTOOLS_SCRIPT_ACTION in "+max(cure.stages, "-")+") ;; *) exit 0 ;; esac\n")
	var numbers *lab.Numbers
	r := s.Restore(t, lab.RestoreOptions{Before: func() {
		if cure.occupied {
			numbers = lab.HoldNumbersUpTo(t, s.highest)
		}
	}})
	if cure.strategy == "" {
		checkSoakCure(t, r.ReadReport(t), cure.want)
	} else {
		checkSoakCure(t, repairByHand(t, r, "--strategy", cure.strategy), cure.want)
	}
	if numbers != nil {
		numbers.Release()
	}
	if cure.want == "restarted" {
		// It works in a mount that is detached now, which CRIU cannot dump.
		r.Run(t, "systemctl", "restart", "worker.service")
	}
	checkNoWaiters(t, r.Container)
	r.CheckUntouched(t)
	lab.WaitNoneRunning(t, helperLimit)
	if err := os.RemoveAll(s.Images); err != nil {
		t.Error(err)
	}
	return r
}

// checkSoakCure is checkCure where a mount may have got its old number by chance.
func checkSoakCure(t *testing.T, report lab.Report, want string) {
	t.Helper()
	for i := range report.Mounts {
		if m := &report.Mounts[i]; m.Outcome == "healthy" && m.DeviceBefore == m.DeviceNow && m.Master.Kind == "systemd" {
			m.Outcome = want
		}
	}
	if report.Outcome == "nothing-to-do" {
		report.Outcome = "repaired"
	}
	checkCure(t, report, want)
}

func highestDevice(t *testing.T, c *lab.Container) uint32 {
	t.Helper()
	var highest uint32
	for _, m := range lab.Autofs(t, c.PID) {
		highest = max(highest, uint32(m.Minor))
	}
	return highest
}

// counts are the numbers of all objects that a run could leave behind.
type counts struct{ nodeMounts, mounts, superblocks, processes, files, groups, runFiles int }

func (c counts) String() string {
	return fmt.Sprintf("%d mounts of the node, %d of the container in %d file systems, %d processes in the node, %d open files, %d control groups, %d files of the program",
		c.nodeMounts, c.mounts, c.superblocks, c.processes, c.files, c.groups, c.runFiles)
}

// exceeds allows for short-lived objects, and for open connections of systemd.
func (c counts) exceeds(first counts) bool {
	return c.nodeMounts > first.nodeMounts || c.mounts > first.mounts || c.superblocks > first.superblocks ||
		c.processes > first.processes+2 || c.files > first.files+6 || c.groups > first.groups+1 || c.runFiles > first.runFiles+2
}

func countAll(t *testing.T, c *lab.Container, r *lab.Restored) counts {
	t.Helper()
	r.Settle(t)
	n := counts{nodeMounts: len(lab.Mounts(t, 1)), files: len(r.Files(t)), runFiles: len(lab.RunFiles(t))}
	superblocks := make(map[string]bool)
	for _, table := range r.Forest(t) {
		for _, m := range table {
			if strings.HasPrefix(m.Mountpoint, "/tmp/auto") {
				continue // a new automount daemon tests mounting there
			}
			n.mounts++
			superblocks[fmt.Sprintf("%d:%d", m.Major, m.Minor)] = true
		}
	}
	n.superblocks = len(superblocks)
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/" + c.ID + "/*")
	if err != nil {
		t.Fatal(err)
	}
	n.processes, n.groups = len(processes), len(groups)
	return n
}

// TestSoakKills kills runs at random times, for SOAK_SECONDS, which cannot be reproduced.
// Without SOAK_SECONDS it kills at random calls, which can be.
func TestSoakKills(t *testing.T) {
	requireHook(t)
	limit := time.Duration(lab.IntFromEnvironment(t, "SOAK_SECONDS", 1, 5)) * time.Second
	timed := os.Getenv("SOAK_SECONDS") != ""
	private, seed := checkpoint(t), uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	walks := map[string]*crashWalk{}
	var sum crashWalk
	for begin := time.Now(); time.Since(begin) < limit && !t.Failed(); {
		if deadline, ok := t.Deadline(); ok && time.Until(deadline) < crashReserve {
			break
		}
		c := crashCases[random.IntN(len(crashCases))]
		if c.shared {
			continue // the shared checkpoint is not
		}
		w := walks[c.name]
		if w == nil {
			w = &crashWalk{crashCase: c, s: private}
			walks[c.name] = w
		}
		if !w.killAtRandom(t, random, timed, sum.walked) {
			sum.lost++
		}
		sum.walked++
	}
	for _, w := range walks {
		sum.killed, sum.nothing, sum.finished, sum.undone = sum.killed+w.killed, sum.nothing+w.nothing, sum.finished+w.finished, sum.undone+w.undone
	}
	t.Logf("%d runs, killed %d; the next run found nothing to do %d, finished %d, undid %d; lost %d",
		sum.walked, sum.killed, sum.nothing, sum.finished, sum.undone, sum.lost)
	if sum.killed == 0 {
		t.Error("no run was killed, so the test proves nothing")
	}
}

// killAtRandom kills the run after some milliseconds, or at one of its calls, and reports
// whether all checks passed.
func (c *crashWalk) killAtRandom(t *testing.T, random *rand.Rand, timed bool, number int) bool {
	t.Helper()
	if timed {
		after := time.Duration(random.IntN(150)) * time.Millisecond
		return t.Run(fmt.Sprintf("%d %s after %s", number, c.name, after), func(t *testing.T) {
			c.step(t, lab.NewTimedKiller(t, after+time.Microsecond))
		})
	}
	n := 1 + random.IntN(c.countCalls(t))
	return t.Run(fmt.Sprintf("%d %s at call %d", number, c.name, n), func(t *testing.T) {
		t.Logf("again: CRASH_WALK=%d-%d, -run '^TestCrash$/^%s$'", n, n, c.name)
		c.step(t, lab.NewKiller(t, n))
	})
}
