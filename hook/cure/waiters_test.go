package cure

import (
	"errors"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"

	"golang.org/x/sys/unix"
)

// TestKillWaiter: only a process in a mount namespace of the container is killed.
func TestKillWaiter(t *testing.T) {
	testenv.RequireRoot(t)
	inside, elsewhere := testenv.StartInNamespaces(t, unix.CLONE_NEWNS), testenv.StartInNamespaces(t, unix.CLONE_NEWNS)
	init := testproc.Open(t, inside)
	c, err := container.Open(init, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, test := range map[string]struct {
		child *testenv.Child
		ended bool
	}{"in another mount namespace": {elsewhere, false}, "on the host": {testenv.Start(t, nil), false}, "inside": {inside, true}} {
		p := testproc.Open(t, test.child)
		err := NewSession(c, journal.Store{}, nil).killWaiter(t.Context(), container.Waiter{PID: p.PID(), Process: p.PID(), ProcessStart: p.StartTime()})
		if p.Ended() != test.ended || errors.Is(err, owner.ErrOutside) == test.ended {
			t.Errorf("%s: %v, ended %v, want %v", name, err, p.Ended(), test.ended)
		}
	}
}
