package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestDeviceLockHeld restores while another run keeps the lock of device numbers: the
// next cure is used, and the restored processes are not stopped for longer than the
// lock's timeout.
func TestDeviceLockHeld(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	dir := filepath.Join("/run/autofs-restore-hook", "locks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(dir)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	reexecuted := 0
	report := r.ReadReport(t)
	for _, m := range report.Mounts {
		switch m.Outcome {
		case "preserved":
			t.Errorf("%s: preserved without the lock", m.Path)
		case "reexecuted":
			reexecuted++
		}
	}
	if reexecuted == 0 {
		t.Errorf("no mount was reexecuted: %+v", report.Mounts)
	}
	if gaveUp := "other restores held it for 300ms"; strings.Count(r.Log, gaveUp) != 2 { // at pre-restore and pre-resume
		t.Errorf("want %q twice:\n%s", gaveUp, hookLines(r.Log))
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
}
