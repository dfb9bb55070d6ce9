// Package demo shows the hang and the repair on a real container: `make demo`. It is a
// test, so that it can use the laboratory, and fails when the demonstration does.
package demo

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// limit is the time after which an access counts as hanging.
const limit = 2 * time.Second

func TestDemo(t *testing.T) {
	lab.RequireNode(t)
	if _, err := os.Stat(lab.Hook()); err != nil {
		t.Fatalf("the program to show: %v (make build, or HOOK=/path)", err)
	}
	heading("1. A container: Debian 12, systemd 252 as PID 1, the automount daemon 5.1.8")
	fmt.Printf("   runtime %s, %s\n\n", firstLine("runc", "--version"), firstLine("criu", "--version"))
	c := lab.Start(t, lab.Options{MountRateLimit: true})
	c.Populate(t)
	for _, a := range lab.Accesses {
		fmt.Printf("   %-32s %s\n", a.Path, a.About)
	}

	heading("2. Checkpoint: CRIU writes the running container to files and ends it")
	units := c.Units(t)
	checkpoint := c.Checkpoint(t)
	fmt.Printf("   done in %s\n", round(checkpoint.Took))

	heading("3. Restore, without " + lab.Hook())
	lab.InstallActionScript(t, "")
	if r, err := checkpoint.TryRestore(t, lab.RestoreOptions{}); err == nil {
		r.Kill(t)
		t.Error("restored without the control groups that systemd watches")
	} else {
		fmt.Printf("   CRIU fails: control groups that systemd watches do not exist yet:\n   %s\n\n"+
			"   The hang is behind that. A script that creates these groups, and does nothing else:\n\n", missingGroup(err))
	}
	checkpoint.InstallGroupsOnly(t)
	r := checkpoint.Restore(t, lab.RestoreOptions{})
	fmt.Printf("   done in %s. For systemd mnt-idle.automount is %q, but reading takes:\n\n",
		round(r.Took), strings.TrimSpace(r.Run(t, "systemctl", "is-active", "mnt-idle.automount")))
	broken := show(t, r.Container, func(a lab.Access) bool { return !a.Stale })
	showUncovered(t, r.Container, false)
	fmt.Printf("\n   %d of %d accesses hang until they are killed, and so do the covered automounts.\n", broken, len(lab.Accesses))
	r.Kill(t)

	heading("4. Restore of the same files, with it as CRIU's action script")
	lab.InstallActionScript(t, lab.Hook())
	r = checkpoint.Restore(t, lab.RestoreOptions{})
	report := r.ReadReport(t)
	fmt.Printf("   done in %s. Its report: %q:\n\n", round(r.Took), report.Outcome)
	showReport(report)
	changes := lab.UnitChanges(units, r.Settle(t))
	fmt.Printf("\n   Units of systemd that have changed since the checkpoint: %d\n", len(changes))
	for _, change := range changes {
		fmt.Printf("     %s\n", change)
	}
	fmt.Print("   Reading takes (the better part of a second is systemd's own, checkpoint or not):\n\n")
	broken = show(t, r.Container, func(lab.Access) bool { return true })
	showUncovered(t, r.Container, true)
	if t.Failed() {
		fmt.Print("\nNot everything is as it should be: see below.\n")
		return
	}
	fmt.Printf("\n   %d of %d accesses hang. Nothing that was mounted was lost.\n", broken, len(lab.Accesses))
}

// showReport prints each automount once, with the number of mount namespaces in which it
// has the same outcome.
func showReport(report lab.Report) {
	type line struct{ path, outcome, kind, unit, reason string }
	var order []line
	namespaces := make(map[line]int)
	for _, m := range report.Mounts {
		l := line{m.Path, m.Outcome, m.Master.Kind, m.Master.Unit, ""}
		if m.Outcome == "unrepaired" {
			l.reason = m.Reason
		}
		if namespaces[l]++; namespaces[l] == 1 {
			order = append(order, l)
		}
	}
	for _, l := range order {
		fmt.Printf("   %-32s %-10s in %d mount namespace(s), served by %s\n", l.path, l.outcome, namespaces[l], strings.TrimSpace(l.kind+" "+l.unit))
		if l.reason != "" {
			fmt.Printf("      %s\n", l.reason)
		}
	}
}

// show touches every path and prints the results. The accesses for which answers is true
// must answer, all others must hang. It returns the number of hanging ones.
func show(t *testing.T, c *lab.Container, answers func(lab.Access) bool) int {
	hung := 0
	for i, o := range c.TouchAccesses(t, lab.Accesses, limit) {
		a := lab.Accesses[i]
		fmt.Printf("   %-32s %s\n", a.Path, describe(o))
		if o.Hung {
			hung++
		}
		if answers(a) && !a.Answers(o) || !answers(a) && !o.Waiting {
			t.Errorf("%s: %s", a.Path, o)
		}
	}
	return hung
}

// showUncovered does the same for the automounts that were covered.
func showUncovered(t *testing.T, c *lab.Container, answers bool) {
	c.Unhide(t)
	if answers {
		c.CheckAnswers(t, lab.Hidden)
	}
	c.Uncover(t)
	fmt.Print("\n   The same after unmounting the covers:\n\n")
	for i, o := range c.TouchUncovered(t, limit) {
		fmt.Printf("   %-32s %s\n", lab.Uncovered[i], describe(o))
		if answers && !lab.UncoveredAnswers(o) || !answers && !o.Waiting {
			t.Errorf("%s, uncovered: %s", lab.Uncovered[i], o)
		}
	}
}

// missingGroup returns CRIU's error about a missing control group.
func missingGroup(err error) string {
	for line := range strings.Lines(err.Error()) {
		if _, text, found := strings.Cut(line, "fsnotify: "); found {
			return strings.TrimSpace(text)
		}
	}
	return err.Error()
}

func describe(o lab.Touch) string {
	if o.Waiting {
		return fmt.Sprintf("HANGS   (the kernel: in autofs_wait after %s)", round(o.Took))
	}
	if o.Hung || o.Failed {
		return "FAILS   " + o.String()
	}
	return "answers in " + round(o.Took).String()
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func heading(text string) { fmt.Printf("\n%s\n\n", text) }

func firstLine(command ...string) string {
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return command[0] + ": " + err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
