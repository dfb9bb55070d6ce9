package respawn

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/clone"
)

// script is a list of system calls, and the memory that they use.
type script struct {
	steps []clone.Step
	keep  []any
}

func (s *script) add(name string, number uintptr, args ...uintptr) {
	step := clone.Step{Name: name, Number: number}
	copy(step.Args[:], args)
	s.steps = append(s.steps, step)
}

// bytes is the address of a copy of b that stays where it is.
func (s *script) bytes(b []byte) uintptr {
	if len(b) == 0 {
		return 0
	}
	kept := append([]byte(nil), b...)
	s.keep = append(s.keep, kept)
	return uintptr(unsafe.Pointer(&kept[0]))
}

func (s *script) text(t string) uintptr { return s.bytes(append([]byte(t), 0)) }

// vector is the address of a list of strings for exec.
func (s *script) vector(list []string) uintptr {
	v := make([]uintptr, len(list)+1) // ends with 0
	for i, word := range list {
		v[i] = s.text(word)
	}
	s.keep = append(s.keep, v)
	return uintptr(unsafe.Pointer(&v[0]))
}

// object is the address of something on the heap, which v keeps there.
func (s *script) object(v any, address unsafe.Pointer) uintptr {
	s.keep = append(s.keep, v)
	return uintptr(address)
}

// write is the script of a twin. It waits first for a byte from gate: then it has
// been moved to its control groups and is traced. proc is the host's /proc.
func (t *Twin) write(gate, proc int) (*script, error) {
	s := &script{}
	fd := func(index int) uintptr { return uintptr(file(index)) }
	s.guard()
	s.add("read", unix.SYS_READ, uintptr(gate), s.bytes(make([]byte, 1)), 1)
	s.add("setsid", unix.SYS_SETSID)
	s.resources(t)
	s.enter(t)
	s.add("fchdir", unix.SYS_FCHDIR, fd(fileRoot))
	s.add("chroot", unix.SYS_CHROOT, s.text("."))
	s.add("fchdir", unix.SYS_FCHDIR, fd(fileDirectory))
	s.add("umask", unix.SYS_UMASK, uintptr(t.Umask))
	for i := range uintptr(3) {
		s.add("dup3", unix.SYS_DUP3, fd(fileNull), i, 0)
	}
	s.add("close_range", unix.SYS_CLOSE_RANGE, 3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	ours, err := ourselves()
	if err != nil {
		return nil, err
	}
	if err := s.identity(t, ours); err != nil {
		return nil, err
	}
	if t.Label != "" {
		s.add("security label", unix.SYS_OPENAT, uintptr(proc), s.text("thread-self/attr/exec"), unix.O_WRONLY|unix.O_CLOEXEC)
		s.add("security label", unix.SYS_WRITE, 0, s.bytes([]byte(t.Label)), uintptr(len(t.Label)))
		s.steps[len(s.steps)-1].OnResult = true
	}
	s.signals(t, ours)
	s.add("prctl(PR_SET_PDEATHSIG)", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0) // the tracer ends it from here on
	for _, f := range t.Filters {
		s.filter(f)
	}
	if t.Path != "" {
		s.add("execve", unix.SYS_EXECVE, s.text(t.Path), s.vector(words(t.Arguments)), s.vector(words(t.Environment)))
	} else {
		s.add("execveat", unix.SYS_EXECVEAT, fd(fileExecutable), s.text(""), s.vector(words(t.Arguments)), s.vector(words(t.Environment)), unix.AT_EMPTY_PATH)
	}
	return s, nil
}

// guard has nobody look into a copy.
func (s *script) guard() {
	s.add("prctl(PR_SET_DUMPABLE)", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
}

// enter enters all namespaces but the pid namespace, which a copy is born into.
func (s *script) enter(t *Twin) {
	for i, kind := range t.Spaces {
		if kind != "pid" {
			s.add("setns("+kind+")", unix.SYS_SETNS, uintptr(file(fileSpaces+i)), 0)
		}
	}
}

// resources are limits and scheduling.
func (s *script) resources(t *Twin) {
	for i := range t.Limits {
		s.add("prlimit64("+strconv.Itoa(i)+")", unix.SYS_PRLIMIT64, 0, uintptr(i), s.object(t, unsafe.Pointer(&t.Limits[i])), 0)
	}
	s.add("sched_setattr", unix.SYS_SCHED_SETATTR, 0, s.object(t, unsafe.Pointer(&t.Schedule)), 0)
	s.add("sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(t.Affinity), s.object(t, unsafe.Pointer(&t.Affinity)))
	s.add("personality", unix.SYS_PERSONALITY, uintptr(t.Personality))
}

// identity are user, groups and privileges. The order is that in which each
// step is still allowed to do the next.
func (s *script) identity(t, ours *Twin) error {
	if have, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0); err != nil || have != 0 {
		return fmt.Errorf("this program runs with securebits %#x, which a new process would have too: %w", have, ErrNotPossible)
	}
	for dropped := ours.Bounding &^ t.Bounding; dropped != 0; dropped &= dropped - 1 {
		s.add("prctl(PR_CAPBSET_DROP)", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(bits.TrailingZeros64(dropped)))
	}
	var groups uintptr
	if len(t.More) > 0 {
		groups = s.object(t, unsafe.Pointer(&t.More[0]))
	}
	s.add("setgroups", unix.SYS_SETGROUPS, uintptr(len(t.More)), groups)
	s.add("setresgid", unix.SYS_SETRESGID, uintptr(t.UserGroups[0]), uintptr(t.UserGroups[1]), uintptr(t.UserGroups[2]))
	s.add("prctl(PR_SET_KEEPCAPS)", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	s.add("setresuid", unix.SYS_SETRESUID, uintptr(t.Users[0]), uintptr(t.Users[1]), uintptr(t.Users[2]))
	// A keyring of our session would go along; a kernel without keys has none.
	if _, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, unix.KEY_SPEC_SESSION_KEYRING, 0, 0, 0); !errors.Is(err, unix.ENOSYS) {
		s.add("keyctl(KEYCTL_JOIN_SESSION_KEYRING)", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0)
	}
	if t.NoNewPrivileges {
		s.add("prctl(PR_SET_NO_NEW_PRIVS)", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	}
	s.capabilities(t.Permitted, t.Inheritable)
	s.add("prctl(PR_CAP_AMBIENT)", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
	for raised := t.Ambient; raised != 0; raised &= raised - 1 {
		s.add("prctl(PR_CAP_AMBIENT)", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(bits.TrailingZeros64(raised)))
	}
	return nil
}

func (s *script) capabilities(permitted, inheritable uint64) {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{}
	for i := range data {
		shift := 32 * i
		data[i] = unix.CapUserData{Effective: uint32(permitted >> shift), Permitted: uint32(permitted >> shift), Inheritable: uint32(inheritable >> shift)}
	}
	s.add("capset", unix.SYS_CAPSET, s.object(header, unsafe.Pointer(header)), s.object(data, unsafe.Pointer(data)))
}

// signals has the twin block none, and ignore what the process ignores: handlers
// end with an exec, but who ignores a signal goes on doing so.
func (s *script) signals(t, ours *Twin) {
	for differ := ours.Ignored ^ t.Ignored; differ != 0; differ &= differ - 1 {
		signal := bits.TrailingZeros64(differ)
		// struct sigaction of the kernel begins with SIG_DFL, 0, or SIG_IGN, 1.
		action := &[4]uint64{t.Ignored >> signal & 1}
		s.add("rt_sigaction", unix.SYS_RT_SIGACTION, uintptr(signal)+1, s.object(action, unsafe.Pointer(action)), 0, 8)
	}
	s.add("rt_sigprocmask", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, s.bytes(make([]byte, 8)), 0, 8)
}

func (s *script) filter(f Filter) {
	program := &unix.SockFprog{Len: uint16(len(f.Program) / instructionSize)}
	program.Filter = (*unix.SockFilter)(unsafe.Pointer(&f.Program[0]))
	s.keep = append(s.keep, f.Program)
	var flags uintptr
	if f.Log {
		flags = unix.SECCOMP_FILTER_FLAG_LOG
	}
	s.add("seccomp", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, s.object(program, unsafe.Pointer(program)))
}

func (s *script) done() { runtime.KeepAlive(s) }
