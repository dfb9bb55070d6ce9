// Package testlock keeps tests apart that disturb each other on one machine: each file
// system, also one in a namespace of its own, takes the lowest free device number of the
// machine. It is imported by tests only.
//
// Files in /run/autofs-restore-hook-tests are locked with flock(2):
//
//	laboratory   by each node of the laboratory (test/node/enter), alone
//	superblocks  by the tests of each package that mounts, shared; by each test of the
//	             laboratory, which needs particular numbers, alone
//	gate         for a moment, in the same way, before superblocks: so each waits only
//	             for those that have started before it
package testlock

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// dir is the folder of the locks. Nodes of the laboratory show it at the same path.
var dir = "/run/autofs-restore-hook-tests"

// patience is how long a test waits for others.
var patience = 5 * time.Minute

// Share takes the lock of superblocks as one of many. It needs root. Closing the file
// releases the lock.
func Share() (*os.File, error) { return take(unix.LOCK_SH) }

// Main is for TestMain: it returns the exit status of run, during which it has the lock as
// [Share] takes it.
func Main(run func() int) int {
	lock, err := Share()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the lock of tests:", err)
		return 1
	}
	defer lock.Close()
	return run()
}

// Alone takes the lock of superblocks alone. It needs root. Closing the file releases the
// lock.
func Alone() (*os.File, error) { return take(unix.LOCK_EX) }

func take(how int) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:forbidigo // of tests, in a folder of root
		return nil, err
	}
	var files [2]*os.File
	for i, name := range []string{"gate", "superblocks"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		files[i] = f
	}
	locked := make(chan error, 1)
	go func() {
		defer files[0].Close()
		for _, f := range files {
			if err := unix.Flock(int(f.Fd()), how); err != nil {
				locked <- os.NewSyscallError("flock", err)
				return
			}
		}
		locked <- nil
	}()
	select {
	case err := <-locked:
		return files[1], err
	case <-time.After(patience):
		return nil, fmt.Errorf("other tests on this machine have used device numbers for %v: fuser %s/superblocks shows their processes", patience, dir)
	}
}
