package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestCRIUScript checks what the README says about CRIU's systemd-autofs-restart.sh, with
// all of the container's units in its list. It runs after the restore: as an action script
// under runc the script fails, because its standard input is closed there.
func TestCRIUScript(t *testing.T) {
	s := checkpoint(t)
	var units []string
	for _, a := range lab.SystemdAutomounts {
		units = append(units, lab.UnitName(a.Path, "automount"))
	}
	r := restoreStale(t, s)
	before := r.Units(t)
	script := exec.Command(lab.CRIUScriptFor(t, append(units, lab.UnitName(lab.Binfmt, "automount"))))
	script.Env = append(os.Environ(), "CRTOOLS_SCRIPT_ACTION=post-resume", fmt.Sprintf("CRTOOLS_INIT_PID=%d", r.PID))
	started := time.Now()
	output, err := script.CombinedOutput()
	t.Logf("the script took %s:\n%s", time.Since(started).Round(time.Millisecond), output)
	if err != nil {
		t.Fatal(err)
	}

	changed := strings.Join(changedUnits(before, r.Units(t)), "\n")
	t.Logf("changed units:\n%s", changed)
	for _, unit := range append(units, "worker.service") {
		if !strings.Contains(changed, unit) {
			t.Errorf("%s has not changed", unit)
		}
	}
	lost := []string{lab.Direct + "/" + lab.Marker, lab.Direct2 + "/" + lab.Marker, lab.Stacked + "/nested/file"}
	for _, a := range lab.Accesses {
		limit := lab.AnswerLimit
		if slices.Contains(lost, a.Path) {
			limit = lab.TouchLimit / 3
		}
		o := r.Touch(t, a.Path, limit)
		t.Logf("%s (%s): %s", a.Path, a.About, o)
		if want := !slices.Contains(lost, a.Path); a.Answers(o) != want {
			t.Errorf("%s answers: %v, the README says %v", a.Path, !want, want)
		}
	}
}
