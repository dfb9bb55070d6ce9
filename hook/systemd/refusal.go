package systemd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// stateRoom is the free space, in bytes, that systemd requires below /run/systemd to
// re-execute itself (src/core/dbus-manager.c, verify_run_space).
const stateRoom = 16 << 20

// canReexecute refuses a systemd that another process traces, that could not execute
// itself, or, unless replaced is set, whose program file was replaced since it was started: it
// would load the new one.
func canReexecute(pid1 *nsenter.Process, replaced bool) error {
	tracer, err := pid1.Status("TracerPid")
	if err != nil {
		return err
	}
	if tracer != "0" {
		return fmt.Errorf("process %d is being traced", pid1.PID())
	}
	if err := checkProgram(pid1, replaced); err != nil {
		return err
	}
	// Without a real /proc a re-executed systemd gives up, which ends the container;
	// without its control groups and /dev/autofs it serves no automount.
	if err := checkType(pid1, "/proc", unix.PROC_SUPER_MAGIC); err != nil {
		return err
	}
	if err := checkType(pid1, "/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.TMPFS_MAGIC); err != nil {
		return err
	}
	if err := checkDevice(pid1); err != nil {
		return err
	}
	return checkRoom(pid1)
}

// checkType checks that a file system of the container is of one of the types.
func checkType(pid1 *nsenter.Process, path string, types ...int64) error {
	dir, err := pid1.OpenInRoot(path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer dir.Close()
	st, err := sys.StatFS(dir)
	if err != nil {
		return err
	}
	if !slices.Contains(types, st.Type) {
		return fmt.Errorf("its %s has file system type %#x: systemd would not work after re-executing itself", path, st.Type)
	}
	return nil
}

// checkDevice checks the container's /dev/autofs: systemd opens it again.
func checkDevice(pid1 *nsenter.Process) error {
	f, err := pid1.OpenInRoot(autofs.ControlPath, unix.O_PATH)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := sys.Stat(f)
	if err != nil {
		return err
	}
	if !autofs.IsControl(&st) {
		return errors.New("its /dev/autofs is another file: systemd would serve no automount after re-executing itself")
	}
	return nil
}

// checkProgram checks the file that systemd would execute, by the path
// SYSTEMD_BINARY_PATH. Without such a file the container would end.
func checkProgram(pid1 *nsenter.Process, replaced bool) error {
	link, err := pid1.Readlink("exe")
	if err != nil {
		return err
	}
	path := strings.TrimSuffix(link, " (deleted)")
	if !strings.HasSuffix(path, "/lib/systemd/systemd") {
		return fmt.Errorf("its program file was replaced since it was started: it is %q now, and systemd would execute another path", link)
	}
	running, err := pid1.OpenPath("exe")
	if err != nil {
		return err
	}
	defer running.Close()
	onDisk, err := pid1.OpenInRoot(path, unix.O_PATH)
	if err != nil {
		return fmt.Errorf("its program file was replaced since it was started: %w", err)
	}
	defer onDisk.Close()
	a, errA := running.Stat()
	b, errB := onDisk.Stat()
	switch err := errors.Join(errA, errB); {
	case err != nil:
		return err
	case os.SameFile(a, b):
		return nil
	case !b.Mode().IsRegular() || b.Mode()&0o111 == 0 || b.Size() == 0:
		return fmt.Errorf("its program file %q was replaced since it was started, and is not executable now", path)
	case !replaced:
		return fmt.Errorf("its program file %q was replaced since it was started: re-executing would load another version", path)
	}
	return nil
}

// checkRoom saves waiting for a systemd that would refuse.
func checkRoom(pid1 *nsenter.Process) error {
	dir, err := pid1.OpenInRoot("/run/systemd", unix.O_PATH)
	if err != nil {
		return err
	}
	defer dir.Close()
	st, err := sys.StatFS(dir)
	if err != nil {
		return fmt.Errorf("free space below /run/systemd: %w", err)
	}
	if free := st.Bfree * uint64(st.Bsize); free < stateRoom {
		return fmt.Errorf("only %d bytes free below its /run/systemd; systemd requires %d to re-execute itself", free, uint64(stateRoom))
	}
	return nil
}
