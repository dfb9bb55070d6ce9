package master

import (
	"errors"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// pressureTrigger is what systemd asks for when the administrator does not say
// otherwise: 200 ms in 2 s (systemd 254 and later for memory, 262 for all).
const pressureTrigger = "some 200000 2000000\x00"

// RearmPressure gives a restored systemd its watches on memory, CPU and I/O
// pressure back, and returns how many files it had to do this for.
//
// CRIU opens a watched file again, but does not write the trigger to it. The
// kernel reports an event on such a file at every poll (psi_trigger_poll in
// kernel/sched/psi.c): the event loop of systemd 254 and later spins, and never
// comes to its queue of jobs, so that no unit starts, no mount unit either. The
// kernel refuses a second trigger with EBUSY: a watch that works is not touched.
func RearmPressure(p *nsenter.Process) (int, error) {
	numbers, err := p.ReadDirNames("fd")
	if err != nil {
		return 0, err
	}
	armed := 0
	var errs []error
	for _, name := range numbers {
		if target, err := p.Readlink("fd/" + name); err != nil || !isPressure(target) {
			continue
		}
		number, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		done, err := rearm(p, number)
		if err != nil {
			errs = append(errs, err)
		}
		if done {
			armed++
		}
	}
	return armed, errors.Join(errs...)
}

// isPressure reports whether this may be a file that tells a pressure.
func isPressure(target string) bool {
	switch path.Base(target) {
	case "memory.pressure", "cpu.pressure", "io.pressure":
		return true
	}
	return path.Dir(target) == "/proc/pressure"
}

// rearm writes the trigger through the process's own open file: another one
// would have a trigger of its own. The container may have given any file that
// name: only one of the kernel's is written to.
func rearm(p *nsenter.Process, number int) (bool, error) {
	fd, err := unix.PidfdGetfd(int(p.Pidfd().Fd()), number, 0)
	if err != nil {
		return false, os.NewSyscallError("pidfd_getfd", err)
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false, os.NewSyscallError("fstatfs", err)
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC && st.Type != unix.PROC_SUPER_MAGIC {
		return false, nil
	}
	_, err = unix.Write(fd, []byte(pressureTrigger))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EBADF): // it has one; or is only read
		return false, nil
	}
	return false, os.NewSyscallError("write", err)
}
