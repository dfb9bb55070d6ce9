package e2e

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestRepairCommand repairs a container that was restored without the program.
func TestRepairCommand(t *testing.T) {
	requireHook(t)
	r := restoreStale(t, checkpoint(t))
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json")
	if result.Status != 0 {
		t.Errorf("repair: exit status %d: %s", result.Status, result.Stderr)
	}
	t.Logf("repaired in %s", result.Took)
	checkReport(t, lab.ParseReport(t, result.Stdout), r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)

	again := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID))
	if again.Status != 0 {
		t.Errorf("a second repair: exit status %d: %s", again.Status, again.Stderr)
	}
	r.CheckAnswers(t, lab.Accesses)
	checkUncovered(t, r.Container)
}

// TestInspectCommand inspects a container that needs a repair. An inspection changes
// nothing and does not block.
func TestInspectCommand(t *testing.T) {
	requireHook(t)
	r := restoreStale(t, checkpoint(t))
	before := r.MountTable(t)
	result := lab.RunHook(t, nil, nil, "inspect", strconv.Itoa(r.PID), "--json")
	if result.Status != 0 {
		t.Errorf("inspect --json: exit status %d: %s", result.Status, result.Stderr)
	}
	if !json.Valid(result.Stdout) {
		t.Errorf("inspect --json wrote no JSON:\n%s", result.Stdout)
	}
	table := lab.RunHook(t, nil, nil, "inspect", strconv.Itoa(r.PID))
	if table.Status != 0 {
		t.Errorf("inspect: exit status %d: %s", table.Status, table.Stderr)
	}
	for path := range lab.Autofs(t, r.PID) {
		if !strings.Contains(string(result.Stdout), path) {
			t.Errorf("inspect --json does not list %s", path)
		}
		if !strings.Contains(string(table.Stdout), path) {
			t.Errorf("inspect does not list %s", path)
		}
	}
	if after := r.MountTable(t); after != before {
		t.Errorf("inspect changed the mounts:\n%s\nbefore:\n%s", after, before)
	}
}
