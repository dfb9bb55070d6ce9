package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestHostileLinks has a process of the container exchange a folder above the mount
// points with a link, repeatedly, during a repair.
func TestHostileLinks(t *testing.T) {
	s := hostileCheckpoint(t)
	for _, target := range []string{"/proc/1/root/mnt", "/proc/self/fd", "/proc/1/root", "../../../../../../..", "/"} {
		t.Run(strings.ReplaceAll(target, "/", " "), func(t *testing.T) {
			r := restoreStale(t, s)
			node := readNode(t)
			attack := r.Attack(t, lab.RoleProgram, "swap", "/mnt", target)
			for _, strategy := range []string{"auto", "restart"} {
				runAttacked(t, r.PID, "--strategy", strategy)
			}
			t.Log(strings.TrimSpace(attack.Stop(t, r.Container)))
			// Covers of a unit that could not start again are kept for later.
			node.checkMounts(t)
			r.CheckUntouched(t)
			// The container may have broken its own mounts, but no others.
			repairByHandAnyway(t, r)
			r.Kill(t)
			node.checkUnchanged(t)
		})
	}
}

// repairByHandAnyway is repairByHand for a container that may have damaged itself.
func repairByHandAnyway(t *testing.T, r *lab.Restored) {
	t.Helper()
	runAttacked(t, r.PID)
}

// TestHostileManyMounts has as many mounts as the kernel allows in a namespace:
// in a nested one, in the main one, and as copies of an automount.
func TestHostileManyMounts(t *testing.T) {
	requireHook(t)
	for _, where := range []struct {
		name   string
		source []string // a mount to be copied
		count  int
	}{
		{name: "of tmpfs", count: 100_000},
		{name: "of autofs", source: []string{"/mnt/fake"}, count: 100_000},
	} {
		t.Run(where.name, func(t *testing.T) {
			c := lab.StartHostile(t, "types", "/mnt/fake")
			node := readNode(t)
			args := append([]string{lab.RoleProgram, "mount-many", "/many", fmt.Sprint(where.count)}, where.source...)
			c.Attack(t, args...)
			count := strings.Count(c.MountTable(t), "\n")
			t.Logf("%d mounts", count)
			if count < 50_000 {
				t.Errorf("only %d mounts", count)
			}
			runAttacked(t, c.PID)
			state := fmt.Appendf(nil, `{"ociVersion":"1.0.2","id":"many","status":"running","pid":%d}`, c.PID)
			result := lab.RunHook(t, state, nil, "poststart")
			if result.Status != 0 || result.Took > hostileLimit {
				t.Errorf("as a hook: exit status %d after %s", result.Status, result.Took)
			}
			checkLog(t, result.Stderr)
			t.Logf("as a hook: %s", result.Took.Round(time.Millisecond))
			node.checkUnchanged(t)
		})
	}
}

// TestHostileOvermounts has the container mount file systems over paths that every
// program uses. The container may break itself; the node's mounts do not change, and
// after an unmount all is repaired.
func TestHostileOvermounts(t *testing.T) {
	s := hostileCheckpoint(t)
	for _, place := range []string{"/proc", "/tmp", "/run", "/sys", "/dev", "/mnt", "/"} {
		t.Run(place, func(t *testing.T) {
			r := restoreStale(t, s)
			node := readNode(t)
			// Not through the shell of the container: there is none below a mount on "/".
			r.Run(t, "mount", "-t", "tmpfs", "hostile", place)
			_, report := runAttacked(t, r.PID)
			t.Log(summary(report))
			r.CheckUntouched(t)
			node.checkUnchanged(t)
			if place == "/" || place == "/proc" {
				return // it cannot be unmounted; a systemd without /proc hangs in its own jobs
			}
			r.Run(t, "umount", "--lazy", place) // a systemd that re-executed itself uses it
			runAttacked(t, r.PID)
			r.CheckAnswers(t, lab.Accesses)
			r.CheckAnswers(t, []lab.Access{{Path: lab.Covered + "/" + lab.Marker, Content: lab.Covered, About: "covered"}})
			node.checkUnchanged(t)
		})
	}
}

// summary counts the outcomes of a report.
func summary(report lab.Report) string {
	counts := map[string]int{}
	for _, m := range report.Mounts {
		counts[m.Master.Kind+" "+m.Outcome]++
	}
	return fmt.Sprint(report.Outcome, counts)
}
