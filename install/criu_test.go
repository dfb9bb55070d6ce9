package install

import (
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestNotCallable installs on a file system from which CRIU could not execute the script:
// it fails without a new line, and with the line of an earlier installation.
func TestNotCallable(t *testing.T) {
	root := machine(t, version4, nil)
	if err := os.Mkdir(root+"/opt", 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the mount is in a namespace of its own
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("none", root+"/opt", "tmpfs", unix.MS_NOEXEC, "")
		}
		if err != nil {
			t.Error(err)
			return
		}
		o := Options{Root: root, Prefix: "/opt"}
		refused(t, o, "mounted with noexec")
		if err := unix.Mount("", root+"/opt", "", unix.MS_REMOUNT, ""); err != nil {
			t.Error(err)
			return
		}
		mustInstall(t, o)
		if err := unix.Mount("", root+"/opt", "", unix.MS_REMOUNT|unix.MS_NOEXEC, ""); err != nil {
			t.Error(err)
			return
		}
		refused(t, o, "mounted with noexec") // the agent installs periodically
	}()
	<-done
}

// TestScriptFails has a shell that fails.
func TestScriptFails(t *testing.T) {
	root := machine(t, version4, nil)
	put(t, root+shell+".out", "") // the stand-in for a shell fails then
	refused(t, Options{Root: root}, "as it could not call "+root+script)
}

// TestRunningCRIU detects a process named criu, but not in the pid namespace of a
// container, which could otherwise prevent an uninstall.
func TestRunningCRIU(t *testing.T) {
	testenv.RequireRoot(t)
	name := t.TempDir() + "/criu"
	copyFile(t, "/bin/cat", name)
	if criuRuns() {
		t.Fatal("a CRIU runs on this machine: try again")
	}
	inside := testenv.StartCommand(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, name)
	if criuRuns() {
		t.Error("a process of a container is taken for CRIU")
	}
	inside.End()
	own := testenv.StartCommand(t, nil, name)
	if !criuRuns() {
		t.Error("a CRIU is not seen")
	}
	own.End()
}
