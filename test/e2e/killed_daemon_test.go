package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestKilledBetweenDaemons kills the program when it has ended an automount and
// not started the next one. The next run finishes the work.
func TestKilledBetweenDaemons(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	finishRepair(t, killedBetweenDaemons(t, s))
}

// TestNextDaemonHasItsNumber is the same, and systemd starts the service before the
// next run does, as the killed run had asked it to: the new daemon gets the number
// of the old one, takes that for one that still runs, and ends without a word.
func TestNextDaemonHasItsNumber(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	r := killedBetweenDaemons(t, s)
	notes, _ := filepath.Glob(fmt.Sprintf("/run/autofs-restore-hook/containers/%d-*.service", r.PID))
	if len(notes) != 1 {
		t.Fatalf("notes %q, want one", notes)
	}
	fields := strings.Split(notes[0], ".")
	number, err := strconv.Atoi(fields[len(fields)-2])
	if err != nil {
		t.Fatal(err)
	}
	r.Run(t, "sh", "-c", fmt.Sprintf("echo %d >/proc/sys/kernel/ns_last_pid; exec systemctl start --no-block autofs.service", number-1))
	state := ""
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		state = r.Run(t, "systemctl", "show", "--property", "ActiveState,SubState,MainPID,ControlPID", "autofs.service")
		if strings.Contains(state, "MainPID=0") && strings.Contains(state, "ControlPID=0") && !strings.Contains(state, "inactive") {
			break
		}
	}
	t.Logf("before the next run: %q", state)
	if strings.Contains(state, "ActiveState=active") {
		t.Fatal("the new daemon was started, so this shows nothing")
	}
	finishRepair(t, r)
}

// killedBetweenDaemons restores a container and kills the program when it has
// ended an automount and not started the next one.
func killedBetweenDaemons(t *testing.T, s *snapshot) *lab.Restored {
	t.Helper()
	id := filepath.Base(filepath.Dir(s.Images))
	log := filepath.Join(lab.Scratch(t, id+"-killed"), "daemon")
	lab.InstallWrappedScript(t, lab.Hook(), killerScript("post-resume", id, `! read -r pid <autofs.service/cgroup.procs`, log))
	r := s.Restore(t, lab.RestoreOptions{})
	t.Logf("thawed %s after the kill", thawedAfter(t, log))
	return r
}
