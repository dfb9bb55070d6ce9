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

// pressureHead is what a pressure file begins with (kernel/sched/psi.c, psi_show).
const pressureHead = "some avg10="

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

// isPressure reports whether the name is that of a pressure file. It only saves
// the look at all other files: a container gives its files any name.
func isPressure(target string) bool {
	switch path.Base(target) {
	case "memory.pressure", "cpu.pressure", "io.pressure":
		return true
	}
	return path.Dir(target) == "/proc/pressure"
}

// rearm writes the trigger through the process's own open file: another one
// would have a trigger of its own.
func rearm(p *nsenter.Process, number int) (bool, error) {
	fd, err := unix.PidfdGetfd(int(p.Pidfd().Fd()), number, 0)
	if err != nil {
		return false, os.NewSyscallError("pidfd_getfd", err)
	}
	defer unix.Close(fd)
	if told, err := tellsPressure(fd); err != nil || !told {
		return false, err
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

// tellsPressure reports whether an open file is a pressure file of the kernel.
// The write would act on the host with the rights and in the namespaces of this
// program: a container that binds /proc/sys/kernel/hostname on a pressure file's
// name would rename the host (proc_do_uts_string takes the writer's UTS
// namespace). So the file has to be the kernel's by its file system and, in
// procfs, by its inode number, which is the same in all instances of procfs; and
// it has to read, through the same descriptor, as such a file does.
func tellsPressure(fd int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return false, os.NewSyscallError("fstatfs", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, nil
	}
	switch fs.Type {
	case unix.CGROUP2_SUPER_MAGIC:
	case unix.PROC_SUPER_MAGIC:
		if !isProcPressure(st.Ino) {
			return false, nil // not even read: some files there block the reader
		}
	default:
		return false, nil
	}
	head := make([]byte, len(pressureHead))
	n, err := unix.Pread(fd, head, 0)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.EOPNOTSUPP) { // write-only; no PSI
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("pread", err)
	}
	return string(head[:n]) == pressureHead, nil
}

// isProcPressure reports whether the inode number is that of a file in
// /proc/pressure.
func isProcPressure(inode uint64) bool {
	for _, name := range []string{"memory", "cpu", "io"} {
		var st unix.Stat_t
		if unix.Stat("/proc/pressure/"+name, &st) == nil && st.Ino == inode {
			return true
		}
	}
	return false
}
