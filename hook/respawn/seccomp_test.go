package respawn

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// Instructions of a filter.
const (
	load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	returns = unix.BPF_RET | unix.BPF_K
)

// answers is a filter that has an action for one system call.
func answers(number uint32, action uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: load, K: 0}, // seccomp_data.nr
		{Code: equal, Jf: 1, K: number},
		{Code: returns, K: action},
		{Code: returns, K: unix.SECCOMP_RET_ALLOW},
	}
}

const denied = unix.SECCOMP_RET_ERRNO | uint32(unix.EXDEV)

// filtered are the filters that a test asks for by name, the oldest first.
var filtered = map[string][][]unix.SockFilter{
	"two filters":   {answers(unix.SYS_MKDIRAT, denied), answers(unix.SYS_SYMLINKAT, unix.SECCOMP_RET_LOG)},
	"no exec by fd": {answers(unix.SYS_EXECVEAT, denied)},
	"notifying":     {answers(unix.SYS_MKDIRAT, unix.SECCOMP_RET_USER_NOTIF)},
	"no prctl":      {answers(unix.SYS_PRCTL, unix.SECCOMP_RET_KILL_PROCESS)},
}

const seccompRole = "under-seccomp"

// underSeccomp is the test program as a process that puts itself under filters
// and executes another program.
func underSeccomp(name string, command []string) {
	runtime.LockOSThread()
	for i, list := range filtered[name] {
		program := unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]}
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			uintptr(i)*unix.SECCOMP_FILTER_FLAG_LOG, uintptr(unsafe.Pointer(&program))); errno != 0 {
			panic(errno)
		}
	}
	panic(syscall.Exec(command[0], command, os.Environ()))
}

// TestSeccomp: a twin has the same filters in the same order, with or without
// no_new_privs, or is not started.
func TestSeccomp(t *testing.T) {
	for _, name := range []string{"two filters", "no prctl"} {
		for prefix, wrapper := range map[string]string{"": "exec ", "no_new_privs, ": "exec setpriv --no-new-privs "} {
			t.Run(prefix+name, func(t *testing.T) {
				p := model(t, wrapper+os.Args[0]+" "+seccompRole+" '"+name+"' /bin/sleep 1000", nil)
				prepared, err := twinOf(t, p)
				if err != nil {
					t.Fatal(err)
				}
				a, err1 := filtersOf(t.Context(), p)
				if err := prepared.Go(0); err != nil {
					t.Fatal(err)
				}
				testenv.Eventually(t, "a twin that sleeps", func() bool {
					state, err := prepared.Process().Status("State")
					return err == nil && strings.HasPrefix(state, "S")
				})
				checkTwin(t, p, prepared.Process())
				prepared.starter.Kill() // it traces no more
				b, err2 := filtersOf(t.Context(), prepared.Process())
				same := slices.EqualFunc(a, b, func(a, b Filter) bool { return a.Log == b.Log && string(a.Program) == string(b.Program) })
				if err := errors.Join(err1, err2); !same || len(a) != len(filtered[name]) || err != nil {
					t.Errorf("filters %v, want %v, %v", b, a, err)
				}
				first := unsafe.Slice((*byte)(unsafe.Pointer(&filtered[name][0][0])), len(a[0].Program))
				if string(first) != string(a[0].Program) {
					t.Errorf("the oldest filter is %v, want %v", a[0].Program, first)
				}
			})
		}
	}
	t.Run("a listener", func(t *testing.T) {
		p := model(t, "exec "+os.Args[0]+" "+seccompRole+" notifying /bin/sleep 1000", nil)
		if _, _, err := Capture(t.Context(), p); !errors.Is(err, ErrNotPossible) || !strings.Contains(err.Error(), "another process") {
			t.Errorf("%v", err)
		}
		checkUntouched(t, p)
	})
	t.Run("no exec by fd", func(t *testing.T) {
		p := model(t, "exec "+os.Args[0]+" "+seccompRole+" 'no exec by fd' /bin/sleep 1000", nil)
		twin, files, err := Capture(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		defer Close(files)
		twin.Path = "" // as if the program had been replaced
		if _, err := Prepare(t.Context(), twin, files); !errors.Is(err, ErrNotPossible) || !strings.Contains(err.Error(), "execveat: invalid cross-device link") {
			t.Errorf("%v", err)
		}
		checkUntouched(t, p)
	})
}
