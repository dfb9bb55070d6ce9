package master

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// stateRoom is the free space below /run/systemd without which systemd refuses
// to re-execute itself, in bytes (src/core/dbus-manager.c, verify_run_space).
const stateRoom = 16 << 20

// canReexecute refuses a systemd that is traced by somebody else, that would
// not execute itself, or, unless that is allowed, whose program file was
// replaced since it was started: it would load the new one.
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
	if err := checkProc(pid1); err != nil {
		return err
	}
	return checkRoom(pid1)
}

// checkProc looks at /proc of the container: a systemd that executes itself
// where that is something else gives up, and the container ends.
func checkProc(pid1 *nsenter.Process) error {
	dir, err := pid1.OpenInRoot("/proc", unix.O_PATH)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if st.Type != unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("its /proc is something else (type %#x): it would end when it re-executes itself", st.Type)
	}
	return nil
}

// checkProgram looks at the file that systemd would execute, which it names by
// its path (SYSTEMD_BINARY_PATH). Without such a file the container would end.
func checkProgram(pid1 *nsenter.Process, replaced bool) error {
	link, err := pid1.Readlink("exe")
	if err != nil {
		return err
	}
	path := strings.TrimSuffix(link, " (deleted)")
	if !strings.HasSuffix(path, "/lib/systemd/systemd") {
		return fmt.Errorf("its program file was replaced since it was started: it is %q now, which is not what it would execute", link)
	}
	running, err := pid1.OpenExecutable()
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
		return fmt.Errorf("its program file %q was replaced since it was started, and is no program now", path)
	case !replaced:
		return fmt.Errorf("its program file %q was replaced since it was started: re-executing would load another version", path)
	}
	return nil
}

// checkRoom saves the time to wait for a systemd that refuses.
func checkRoom(pid1 *nsenter.Process) error {
	dir, err := pid1.OpenInRoot("/run/systemd", unix.O_PATH)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("free space below /run/systemd: %w", os.NewSyscallError("fstatfs", err))
	}
	if free := st.Bfree * uint64(st.Bsize); free < stateRoom {
		return fmt.Errorf("there are only %d bytes free below its /run/systemd, and it does not re-execute itself with less than %d", free, uint64(stateRoom))
	}
	return nil
}
