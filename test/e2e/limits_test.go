package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// idleAutomounts returns the files of a container with that many idle automounts.
func idleAutomounts(count int) (files map[string]string, accesses []lab.Access) {
	const dir = "/etc/systemd/system/"
	files = map[string]string{}
	var units []string
	for i := range count {
		path := fmt.Sprintf("/auto/%03d", i)
		unit := lab.UnitName(path, "automount")
		units = append(units, unit)
		files["/srv"+path+"/"+lab.Marker] = path + "\n"
		files[dir+unit] = "[Automount]\nWhere=" + path + "\n"
		files[dir+lab.UnitName(path, "mount")] = "[Mount]\nWhat=/srv" + path + "\nWhere=" + path + "\nType=none\nOptions=bind\n"
		accesses = append(accesses, lab.Access{Path: path + "/" + lab.Marker, Content: path, About: "one of many"})
	}
	files[dir+"multi-user.target.d/many.conf"] = "[Unit]\nWants=" + strings.Join(units, " ") + "\n"
	return files, accesses
}

func takeMany(t *testing.T, count int) (*snapshot, []lab.Access) {
	t.Helper()
	files, accesses := idleAutomounts(count)
	c := lab.Start(t, lab.Options{Plain: true, Files: files})
	c.Settle(t)
	return &snapshot{Checkpoint: c.Checkpoint(t)}, accesses
}

// checkAllCured checks that every mount of the report is cured.
func checkAllCured(t *testing.T, report lab.Report, count int) {
	t.Helper()
	outcomes := make(map[string]int)
	for _, m := range report.Mounts {
		outcomes[m.Outcome]++
	}
	t.Logf("%s: %v", report.Outcome, outcomes)
	if len(report.Mounts) != count || outcomes["unrepaired"] > 0 {
		t.Errorf("report: %d mounts, want %d: %v", len(report.Mounts), count, outcomes)
	}
}

// spread selects some of many accesses: systemd mounts them one after the other.
func spread(accesses []lab.Access, count int) []lab.Access {
	var picked []lab.Access
	for i := range count {
		picked = append(picked, accesses[i*(len(accesses)-1)/(count-1)])
	}
	return picked
}

// TestMemory measures each run of a restore with many automounts
// (LIMITS_AUTOMOUNTS). CRIU does not restore 300 in this laboratory.
func TestMemory(t *testing.T) {
	requireHook(t)
	count := lab.IntFromEnvironment(t, "LIMITS_AUTOMOUNTS", 1, 120)
	const bound = 16 << 10 // KiB
	s, accesses := takeMany(t, count)
	for _, stage := range []string{"pre-restore", "pre-resume", "post-resume"} {
		t.Run(stage, func(t *testing.T) {
			k := lab.NewKiller(t, 0)
			lab.InstallWrappedScript(t, lab.Hook(), "if [ \"$CRTOOLS_SCRIPT_ACTION\" = "+stage+" ]; then\n"+k.Shell()+"fi\n")
			r := s.Restore(t, lab.RestoreOptions{})
			checkPeak(t, k, bound)
			checkAllCured(t, r.ReadReport(t), count)
			r.CheckAnswers(t, spread(accesses, 5))
			r.Kill(t)
		})
	}
	for _, strategy := range []string{"auto", "reexec", "restart"} {
		t.Run("late, "+strategy, func(t *testing.T) {
			k := lab.NewKiller(t, 0)
			r := restoreStale(t, s)
			crashCase{strategy: strategy}.runByHand(t, r, k)
			checkPeak(t, k, bound)
			r.Kill(t)
		})
	}
}

func checkPeak(t *testing.T, k *lab.Killer, bound int) {
	t.Helper()
	peak := k.Peak(t)
	t.Logf("at most %d KiB", peak)
	if peak > bound {
		t.Errorf("the program had %d KiB in memory, want at most %d", peak, bound)
	}
}

// TestFewDescriptors restores more automounts than the program's limit of open files.
func TestFewDescriptors(t *testing.T) {
	requireHook(t)
	for _, count := range []int{120} {
		t.Run(strconv.Itoa(count), func(t *testing.T) {
			s, accesses := takeMany(t, count)
			lab.InstallWrappedScript(t, lab.Hook(), "ulimit -n 256\n")
			r := s.Restore(t, lab.RestoreOptions{})
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(hookLines(r.Log))
				}
			})
			checkAllCured(t, r.ReadReport(t), count)
			r.CheckAnswers(t, spread(accesses, 20))
			checkNoWaiters(t, r.Container)
			lab.WaitNoneRunning(t, helperLimit)
		})
	}
}

// TestLittleMemory runs the program in a control group of 32 MiB.
func TestLittleMemory(t *testing.T) {
	requireHook(t)
	group := memoryGroup(t, 32<<20)
	s, accesses := takeMany(t, 120)
	lab.InstallWrappedScript(t, lab.Hook(), "echo $$ >"+group+"/cgroup.procs || exit 1\n")
	r := s.Restore(t, lab.RestoreOptions{})
	checkAllCured(t, r.ReadReport(t), 120)
	r.CheckAnswers(t, spread(accesses, 10))
	checkNoWaiters(t, r.Container)
	lab.WaitNoneRunning(t, helperLimit)
}

// memoryGroup makes a control group with a limit.
func memoryGroup(t *testing.T, limit int) string {
	t.Helper()
	return limitedGroup(t, "memory", map[bool]string{true: "memory.max", false: "memory.limit_in_bytes"}, limit, t.TempDir())
}

// limitedGroup makes a control group with a limit: of version 2, or of the host's version
// 1, which is mounted on a folder. limits are the names of the limit's file in version 2
// (true) and 1.
func limitedGroup(t *testing.T, controller string, limits map[bool]string, limit int, folder string) string {
	t.Helper()
	root, file := "/sys/fs/cgroup", limits[true]
	if text, _ := os.ReadFile(root + "/cgroup.controllers"); !slices.Contains(strings.Fields(string(text)), controller) {
		root, file = folder, limits[false]
		err := unix.Mount("cgroup", root, "cgroup", 0, controller)
		lab.Require(t, err == nil, fmt.Sprintf("no control group can limit %s: %v", controller, err))
		t.Cleanup(func() {
			if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	group := filepath.Join(root, os.Getenv("LAB_ID")+"-"+controller)
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(helperLimit); ; time.Sleep(20 * time.Millisecond) {
			if err := os.Remove(group); err == nil || errors.Is(err, os.ErrNotExist) {
				return
			} else if time.Now().After(end) {
				t.Errorf("the control group is still in use: %v", err)
				return
			}
		}
	})
	if err := os.WriteFile(filepath.Join(group, file), []byte(strconv.Itoa(limit)), 0); err != nil {
		t.Fatal(err)
	}
	return group
}
