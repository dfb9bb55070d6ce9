package automount

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/ptrace"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// lyingRole is the test program as a process whose ioctls do nothing and succeed:
// a seccomp filter answers them.
const lyingRole = "MASTER_TEST_LIES"

func init() {
	if os.Getenv(lyingRole) != "" {
		panic(lie())
	}
}

func lie() error {
	const number, jumpEqual, load, ret = 0, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: jumpEqual, K: unix.SYS_IOCTL, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return errno
	}
	return unix.Exec("/bin/sh", []string{"sh", "-c", "exec 5</dev/autofs; exec cat"}, []string{})
}

// daemon starts a process that reads, with a file open as /dev/autofs is.
func daemon(t *testing.T, args ...string) *nsenter.Process {
	t.Helper()
	testenv.RequireRoot(t)
	if _, err := os.Stat(autofs.ControlPath); err != nil {
		t.Skipf("skipped: needs %s: %v", autofs.ControlPath, err)
	}
	p := testproc.Open(t, testenv.StartCommand(t, nil, args...))
	testenv.Eventually(t, "it reads", func() bool {
		text, err := p.ReadFile("syscall", 1<<10) // its standard input: the loader reads other files
		comm, _ := p.ReadFile("comm", 1<<10)
		return err == nil && strings.HasPrefix(string(text), strconv.Itoa(unix.SYS_READ)+" 0x0 ") && string(comm) == "cat\n"
	})
	return p
}

func nothingOpened(t *testing.T, p *nsenter.Process, want string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	files, err := openViaMaster(ctx, p, []Root{{Path: "/nonexistent", Device: 1}})
	for _, f := range files {
		if f != nil {
			t.Errorf("%s was opened", f.Name())
			f.Close()
		}
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	testenv.CheckUntraced(t, p.PID())
	if err := p.Alive(); err != nil {
		t.Error(err)
	}
	return err
}

// TestHostileBorrowDevice: a file that is not /dev/autofs is never used as such.
func TestHostileBorrowDevice(t *testing.T) {
	for _, file := range []string{"/dev/null", "/dev/zero", "/etc/passwd", "/dev"} {
		nothingOpened(t, daemon(t, "sh", "-c", "exec 5<"+file+"; exec cat"), "does not have /dev/autofs open")
	}
	nothingOpened(t, daemon(t, "sh", "-c", "exec 5</dev/autofs; exec cat"), "no such file or directory")
}

// TestHostileBorrowLies: the process's ioctls succeed without any effect, and another
// process writes the kernel's answer to its memory.
func TestHostileBorrowLies(t *testing.T) {
	testenv.RequireRoot(t)
	t.Setenv(lyingRole, "1")
	p := daemon(t, "/proc/self/exe")
	nothingOpened(t, p, "")
	var at int64
	testenv.OnThread(func() {
		in, err := ptrace.Inject(t.Context(), p)
		if err != nil {
			t.Error(err)
			return
		}
		_, argument, _ := autofs.OpenRequest("/nonexistent", 1)
		address, err := in.Push(argument)
		if err := errors.Join(err, in.Close(t.Context())); err != nil {
			t.Error(err)
		}
		at = int64(address)
	})
	memory, err := os.OpenFile("/proc/"+strconv.Itoa(p.PID())+"/mem", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		const descriptor = 12 // of struct autofs_dev_ioctl: ioctlfd
		for number := byte(0); ; number = (number + 1) % 6 {
			select {
			case <-stop:
				return
			default:
				_, _ = memory.WriteAt([]byte{number, 0, 0, 0}, at+descriptor)
			}
		}
	}()
	others := 0
	for end := time.Now().Add(testenv.Patience); others < 1 && time.Now().Before(end); {
		if err := nothingOpened(t, p, ""); err != nil && errors.Is(err, unix.ESTALE) {
			others++
		}
	}
	close(stop)
	<-done
	if others == 0 {
		t.Error("no other file was ever taken for the mount, so this shows nothing")
	}
}
