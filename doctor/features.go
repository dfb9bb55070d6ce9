package doctor

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What cannot be done without a feature of the kernel.
const (
	everything = "nothing can be repaired"
	preserved  = "no mount is preserved, and no automount daemon reloads; systemd re-executes itself or units are restarted instead"
	reexecuted = "systemd's state cannot be corrected; units are restarted instead"
)

// features tries the system calls that the cures need, and changes nothing.
func features() []Feature {
	var list []Feature
	try := func(id, name, needed string, essential bool, err error) {
		f := Feature{ID: id, Name: name, Needed: needed, Essential: essential}
		if err != nil {
			f.Error = err.Error()
		}
		list = append(list, f)
	}
	try("pidfd-open", "pidfd_open (5.3)", everything, true, useFD(unix.PidfdOpen(os.Getpid(), 0)))
	try("openat2", "openat2 (5.6)", everything, true, useFD(unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_IN_ROOT})))
	try("open-tree", "open_tree, move_mount (5.2)", preserved, false, useFD(unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLOEXEC|unix.AT_NO_AUTOMOUNT)))
	try("mount-setattr", "mount_setattr (5.12)", preserved, false, exists(unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE})))
	try("fsopen", "fsopen of autofs (5.2)", preserved, false, useFD(unix.Fsopen("autofs", unix.FSOPEN_CLOEXEC)))
	try("statx-mnt-id", "STATX_MNT_ID (5.8)", preserved, false, mountID())
	try("pidfd-getfd", "pidfd_getfd (5.6)", "no open file is passed from one stage of a restore to the next", false, getFD())
	try("close-range", "CLOSE_RANGE_CLOEXEC (5.11)", "helper processes keep files of the caller open", false, unix.CloseRange(1<<30, 1<<30, unix.CLOSE_RANGE_CLOEXEC))
	try("clone3", "clone3 (5.7)", "systemd cannot be contacted: its units are not repaired", false, clone3())
	try("proc-children", "/proc/PID/task/TID/children (CONFIG_PROC_CHILDREN)", everything, true, children())
	try("ptrace", "ptrace", reexecuted, false, ptraceAllowed())
	return list
}

// useFD closes a descriptor that was opened to try that.
func useFD(fd int, err error) error {
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// exists drops every error of a system call but "not implemented" and "not permitted":
// the arguments were wrong on purpose.
func exists(err error) error {
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}

func mountID() error {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, "/", unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	if err == nil && st.Mask&unix.STATX_MNT_ID == 0 {
		return unix.ENOSYS
	}
	return err
}

func getFD() error {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(self)
	return useFD(unix.PidfdGetfd(self, self, 0))
}

// clone3 calls it with arguments of no size, which is EINVAL.
func clone3() error {
	var nothing [1]uint64
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&nothing)), 0, 0)
	return exists(errno)
}

func children() error {
	f, err := os.Open("/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/children")
	if err != nil {
		return err
	}
	return f.Close()
}

var errYama = errors.New("kernel.yama.ptrace_scope is 3: no process may trace until the next boot")

func ptraceAllowed() error {
	if strings.TrimSpace(text("/proc/sys/kernel/yama/ptrace_scope")) == "3" {
		return errYama
	}
	return nil
}
