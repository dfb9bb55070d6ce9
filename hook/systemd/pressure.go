package systemd

import (
	"errors"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// pressureTrigger is systemd's default trigger: 200 ms in 2 s (systemd 254 and later for
// memory, 262 for all).
const pressureTrigger = "some 200000 2000000\x00"

// pressureHead is the start of a pressure file (kernel/sched/psi.c, psi_show).
const pressureHead = "some avg10="

// RearmPressure restores the watches of a restored systemd on memory, CPU and I/O
// pressure, and returns in how many files it wrote a trigger.
//
// CRIU opens a watched file again, but does not write the trigger to it. The
// kernel reports an event on such a file at every poll (psi_trigger_poll in
// kernel/sched/psi.c): the event loop of systemd 254 and later spins, and never
// reaches its job queue, so that no unit starts, including mount units. The
// kernel refuses a second trigger with EBUSY: a working watch is not changed.
func RearmPressure(p *nsenter.Process) (int, error) {
	files, err := p.Descriptors()
	if err != nil {
		return 0, err
	}
	armed := 0
	var errs []error
	for _, number := range files {
		if target, err := p.Readlink("fd/" + strconv.Itoa(number)); err != nil || !looksLikePressure(target) {
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

// looksLikePressure reports whether the name is that of a pressure file. It only filters:
// a container gives its files any name.
func looksLikePressure(target string) bool {
	switch path.Base(target) {
	case "memory.pressure", "cpu.pressure", "io.pressure":
		return true
	}
	return path.Dir(target) == "/proc/pressure"
}

// rearm writes the trigger through the process's own open file: each open file has its
// own trigger.
func rearm(p *nsenter.Process, number int) (bool, error) {
	fd, err := sys.PidfdGetfd(p.Pidfd(), number)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if is, err := isPressureFile(fd); err != nil || !is {
		return false, err
	}
	_, err = unix.Write(fd, []byte(pressureTrigger))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EBADF): // it has a trigger; or is open read-only
		return false, nil
	}
	return false, os.NewSyscallError("write", err)
}

// isPressureFile reports whether an open file is a pressure file of the kernel.
// The write happens with the capabilities and in the namespaces of this program: a
// container that binds /proc/sys/kernel/hostname on a pressure file's name would
// rename the host (proc_do_uts_string takes the writer's UTS namespace). So the file
// must be the kernel's by its file system and, in procfs, by its inode number, which is
// the same in all instances of procfs; and its content, read through the same
// descriptor, must be that of a pressure file.
func isPressureFile(fd int) (bool, error) {
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
			return false, nil // without a read, which may block on other files there
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
		if st, err := sys.StatAt(nil, "/proc/pressure/"+name, 0); err == nil && st.Ino == inode {
			return true
		}
	}
	return false
}
