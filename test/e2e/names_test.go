package e2e

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestInspectByName inspects containers of each runtime by the name that the runtime uses.
func TestInspectByName(t *testing.T) {
	requireHook(t)
	lab.RequireNode(t)
	for _, o := range []lab.Options{
		{Runtime: "runc"},
		{Runtime: "crun"},
		{Runtime: "podman"},
		{Runtime: "podman", OCI: "runc"},
		{Runtime: "containerd"},
	} {
		t.Run(o.Runtime+" "+o.OCI, func(t *testing.T) {
			c := lab.Start(t, o)
			words := []string{c.ID}
			if len(c.ID) == 64 {
				words = append(words, c.ID[:12], filepath.Base(c.Bundle))
			}
			for _, word := range words {
				result := lab.RunHook(t, nil, nil, "inspect", word, "--json")
				if report := lab.ParseReport(t, result.Stdout); result.Status != 0 || report.PID != c.PID || report.Container != c.ID {
					t.Errorf("inspect %s: exit status %d, container %s, process %d; want %s, %d: %s",
						word, result.Status, report.Container, report.PID, c.ID, c.PID, result.Stderr)
				}
			}
			all := lab.RunHook(t, nil, nil, "inspect", "--all", "--json")
			if all.Status != 0 || !strings.Contains(string(all.Stdout), `"pid": `+strconv.Itoa(c.PID)+",") {
				t.Errorf("inspect --all: exit status %d\n%s%s", all.Status, all.Stdout, all.Stderr)
			}
		})
	}
}

// TestRepairAll repairs all containers, one of which was restored without the program.
func TestRepairAll(t *testing.T) {
	requireHook(t)
	r := restoreStale(t, checkpoint(t))
	result := lab.RunHook(t, nil, nil, "repair", "--all")
	if result.Status != 0 || !strings.Contains(string(result.Stdout), r.ID+": ") {
		t.Errorf("repair --all: exit status %d\n%s%s", result.Status, result.Stdout, result.Stderr)
	}
	t.Logf("\n%s", result.Stdout)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
}
