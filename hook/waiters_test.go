package hook

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestEndWaiter: only a process that is in one of the container's mount namespaces
// is ended.
func TestEndWaiter(t *testing.T) {
	testenv.RequireRoot(t)
	inside, elsewhere := testenv.StartInNamespaces(t, unix.CLONE_NEWNS), testenv.StartInNamespaces(t, unix.CLONE_NEWNS)
	init := open(t, inside)
	sc, err := OpenContainer(init, false)
	if err != nil {
		t.Fatal(err)
	}
	defer sc.close()
	for name, test := range map[string]struct {
		child *testenv.Child
		ended bool
	}{"in another mount namespace": {elsewhere, false}, "on the host": {testenv.Start(t, nil), false}, "inside": {inside, true}} {
		p := open(t, test.child)
		err := NewSession(sc, Store{}, nil).endWaiter(t.Context(), Waiter{PID: p.PID(), Process: p.PID(), Start: p.StartTime()})
		if p.Ended() != test.ended || errors.Is(err, owner.ErrOutside) == test.ended {
			t.Errorf("%s: %v, ended %v, want %v", name, err, p.Ended(), test.ended)
		}
	}
}
