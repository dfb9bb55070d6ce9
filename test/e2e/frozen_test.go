package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// thawLimit is how long the container may stay frozen when the program that
// froze it is killed.
const thawLimit = 2 * time.Second

// frozenGroup is a control group that the program freezes.
func frozenGroup(id string) string {
	return filepath.Join("/sys/fs/cgroup", id, "system.slice/holder.service/cgroup.events")
}

// slowed are options for strace, which delays the steps that the program takes
// while the container is frozen, and before it begins to work (flock): it is to
// be caught there, and not when it has ended one automount and not started the
// next.
var slowed = []string{
	"-f", "-o", "/dev/null", "-e", "trace=none",
	"-e", "inject=flock,?rename,?renameat,?renameat2,move_mount:delay_enter=300000",
}

// killerScript is text for an action script: at the stage the program is slowed,
// and killed as soon as the container is to be frozen and a condition is true.
// What happened is written to a file, as dates in nanoseconds. The shell's own
// number is the program's.
func killerScript(stage, id, condition, log string) string {
	return fmt.Sprintf(`if [ "$CRTOOLS_SCRIPT_ACTION" = %[1]s ]; then
	(
		exec >/dev/null 2>&1
		cd %[2]s
		read -r now </proc/uptime; end=$((${now%%%%.*} + 5))
		frozen=0
		until [ $frozen = 1 ] && %[3]s; do
			read -r frozen <holder.service/cgroup.freeze
			read -r now </proc/uptime; [ ${now%%%%.*} -lt $end ] || exit
		done
		kill -9 $$
		read -r frozen <holder.service/cgroup.freeze
		[ $frozen = 1 ] || exit
		date +%%s%%N >%[4]s.killed
		until grep -q 'frozen 0' holder.service/cgroup.events && grep -q 0 holder.service/cgroup.freeze; do sleep 0.01; done
		date +%%s%%N >%[4]s.thawed
	) &
	exec strace -D %[5]s %[6]s
fi
`, stage, filepath.Join("/sys/fs/cgroup", id, "system.slice"), condition, log, strings.Join(slowed, " "), lab.Hook())
}

// TestKilledWhileFrozen kills the program while it has the container frozen, at
// each moment of a restore. The container runs on, and the next run finishes
// the work.
func TestKilledWhileFrozen(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	id := filepath.Base(filepath.Dir(s.Images))
	for _, c := range []struct{ name, stage, condition string }{
		{"preserve", "pre-resume", "true"},
		{"repair", "post-resume", "true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := filepath.Join(lab.Scratch(t, id+"-killed"), strings.ReplaceAll(c.name, " ", "-"))
			lab.InstallWrappedScript(t, lab.Hook(), killerScript(c.stage, id, c.condition, log))
			r := s.Restore(t, lab.RestoreOptions{})
			t.Logf("thawed %s after the kill", thawedAfter(t, log))
			checkThawed(t, r)
			finishRepair(t, r)
		})
	}
	t.Run("by hand", func(t *testing.T) {
		r := restoreStale(t, s)
		killed := killFrozen(t, r)
		waitUntil(t, "the container is thawed", func() bool { return !frozen(t, r) })
		took := time.Since(killed)
		t.Logf("thawed %s after the kill", took)
		if took > thawLimit {
			t.Errorf("the container was frozen for %s after the kill", took)
		}
		checkThawed(t, r)
		finishRepair(t, r)
	})
}

// thawedAfter reads what [killerScript] wrote.
func thawedAfter(t *testing.T, log string) time.Duration {
	t.Helper()
	var dates []int64
	for _, name := range []string{".killed", ".thawed"} {
		var text string
		waitUntil(t, "the script writes "+name, func() bool {
			out, err := exec.Command("cat", log+name).Output()
			text = strings.TrimSpace(string(out))
			return err == nil && text != ""
		})
		date, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		dates = append(dates, date)
	}
	took := time.Duration(dates[1] - dates[0])
	if took > thawLimit {
		t.Errorf("the container was frozen for %s after the kill", took)
	}
	return took
}

// killFrozen runs a repair by hand and kills it while the container is frozen.
func killFrozen(t *testing.T, r *lab.Restored) time.Time {
	t.Helper()
	cmd := exec.Command("strace", append(append([]string{}, slowed...),
		lab.Hook(), "repair", strconv.Itoa(r.PID))...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if !frozen(t, r) {
			continue
		}
		// strace's only child is the program itself.
		children := strings.Fields(readFile(t, fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid)))
		if len(children) != 1 {
			t.Fatalf("strace has the children %q", children)
		}
		pid, err := strconv.Atoi(children[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if !frozen(t, r) {
			t.Error("the container was thawed before the program was killed: nothing is shown")
		}
		return time.Now()
	}
	_ = cmd.Process.Kill()
	t.Fatal("the program did not freeze the container")
	return time.Time{}
}

func frozen(t *testing.T, r *lab.Restored) bool {
	t.Helper()
	return strings.Contains(readFile(t, frozenGroup(r.ID)), "frozen 1")
}

// finishRepair repairs by hand, and wants everything served.
func finishRepair(t *testing.T, r *lab.Restored) {
	t.Helper()
	if report := repairByHand(t, r); report.Outcome != "nothing-to-do" { // the restore's own next run may have done it
		checkReport(t, report, r)
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
	checkThawed(t, r)
	lab.WaitNoneRunning(t, time.Second)
	r.Kill(t) // the next one has the same name
}
