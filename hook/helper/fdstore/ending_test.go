package fdstore

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"golang.org/x/sys/unix"
)

// TestOpenEnding: the files of a helper that is ending are those of one that has
// ended.
func TestOpenEnding(t *testing.T) {
	testenv.RequireRoot(t)
	bound := testproc.Open(t, testenv.Start(t, nil))
	var files []*os.File
	for range 200 {
		files = append(files, scratch(t, "held"))
	}
	for range 20 {
		r, err := Start(Request{Bound: bound, Lifetime: time.Minute, Files: files})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { reap(t, r) })
		killed := make(chan error)
		go func() { killed <- unix.Kill(r.PID, unix.SIGKILL) }()
		for {
			opened, err := r.OpenAll()
			for _, f := range opened {
				f.Close()
			}
			if errors.Is(err, ErrGone) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
	}
}

// TestAbandon: a helper that is abandoned ends, and one that has ended is no error.
func TestAbandon(t *testing.T) {
	ref, _ := hold(t, time.Minute, scratch(t, "held"))
	if err := ref.Abandon(); err != nil {
		t.Fatal(err)
	}
	ended(t, ref)
	reap(t, ref)
	if err := ref.Abandon(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}
