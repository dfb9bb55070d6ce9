package e2e

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestTouchersAtResume has eight processes read from every automount, in a loop of two
// seconds that starts at the resume. No read fails, or reads the folder beneath a mount.
func TestTouchersAtResume(t *testing.T) {
	requireHook(t)
	const count = 8
	c := lab.Start(t, lab.Options{Roles: true, Files: lab.ToucherFiles(count, lab.Accesses)})
	c.Populate(t)
	touchers := c.StartTouchers(t, count)
	s := checkpointOf(t, c)
	for _, cure := range systemdCures {
		t.Run(cure, func(t *testing.T) {
			r := restoreTo(t, s, cure, func() { touchers.Release(t) })
			t.Logf("the slowest read took %s", touchers.Check(t))
			checkNoWaiters(t, r.Container)
			report := r.ReadReport(t)
			checkReport(t, report, r)
			checkCure(t, report, cure)
			r.CheckAnswers(t, lab.Accesses)
			r.Kill(t) // the next one has the same name
		})
	}
}
