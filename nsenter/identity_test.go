package nsenter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"golang.org/x/sys/unix"
)

func TestIdentity(t *testing.T) {
	first := testenv.Start(t, nil)
	time.Sleep(11 * time.Millisecond) // start times come in ticks of 10 ms
	second := testenv.Start(t, nil)
	a, again, b := open(t, first), open(t, first), open(t, second)
	if a.PID() != first.PID() || a.StartTime() == 0 || a.StartTime() >= b.StartTime() {
		t.Errorf("process %d from %d, then %d from %d", a.PID(), a.StartTime(), b.PID(), b.StartTime())
	}
	if a.Identity() != fmt.Sprintf("%d-%d", a.PID(), a.StartTime()) || a.Identity() != again.Identity() || a.Identity() == b.Identity() {
		t.Errorf("identities %q, %q, %q", a.Identity(), again.Identity(), b.Identity())
	}
	for _, f := range []*os.File{a.Pidfd(), a.proc} {
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s is not close-on-exec (%v)", f.Name(), err)
		}
	}
}

func TestParseIdentity(t *testing.T) {
	for text, want := range map[string]struct {
		pid   int
		start uint64
		ok    bool
	}{
		"1-2": {1, 2, true}, "42-18446744073709551615": {42, 1<<64 - 1, true}, "7-0": {7, 0, true},
		"": {}, "1": {}, "1-": {}, "-2": {}, "-": {}, "0-2": {}, "x-2": {}, "1-x": {}, "1--2": {}, "1-2-3": {}, " 1-2": {}, "1-2\n": {}, "1-18446744073709551616": {},
		"99999999999999999999-1": {},
	} {
		pid, start, err := ParseIdentity(text)
		if (err == nil) != want.ok || pid != want.pid || start != want.start {
			t.Errorf("%q: %d, %d, %v", text, pid, start, err)
		}
	}
	p := open(t, testenv.Start(t, nil))
	pid, started, err := ParseIdentity(p.Identity())
	if err != nil || pid != p.PID() || started != p.StartTime() {
		t.Errorf("%s: %d, %d, %v", p.Identity(), pid, started, err)
	}
	same, err := OpenIdentity(pid, started)
	if err != nil {
		t.Fatal(err)
	}
	same.Close()
	for _, id := range [][2]uint64{{uint64(pid), started + 1}, {1<<22 + 1, started}} {
		if p, err := OpenIdentity(int(id[0]), id[1]); !errors.Is(err, fs.ErrNotExist) || p != nil {
			t.Errorf("%v: %v, %v", id, p, err)
		}
	}
}
