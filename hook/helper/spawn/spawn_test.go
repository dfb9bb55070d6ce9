package spawn

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// roleVariable says what the test program is when a test starts it.
const roleVariable = "SPAWN_TEST_ROLE"

const showVerb = "show-rights"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == showVerb {
		runShow()
		os.Exit(0)
	}
	if os.Getenv(roleVariable) == "confined" {
		os.Exit(runConfined())
	}
	if argument, ok := strings.CutPrefix(os.Getenv(roleVariable), "seal "); ok {
		os.Exit(runSeal(argument))
	}
	testenv.Main(m)
}

// asRole runs the test program and returns what it wrote.
func asRole(t *testing.T, role, input string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleVariable + "=" + role}
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", role, err, out)
	}
	return string(out)
}

// runShow is a helper that shows what each of its threads has.
func runShow() {
	output := os.NewFile(FirstFile, "output")
	if err := SetUndumpable(); err != nil {
		fmt.Fprintln(output, err)
	}
	files, _ := filepath.Glob("/proc/self/task/*/status")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			if name, _, _ := strings.Cut(line, ":"); name == "CapEff" || name == "CapPrm" || name == "NoNewPrivs" {
				fmt.Fprint(output, line)
			}
		}
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	fmt.Fprintln(output, "dumpable", dumpable, err)
	// A program that it would execute gets no more.
	cmd := exec.Command("/bin/grep", "CapEff", "/proc/self/status")
	cmd.Stdout = output
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(output, err)
	}
	fmt.Fprintf(output, "environment %q\n", os.Environ())
}

// show starts a helper and returns what it showed.
func show(t *testing.T, capabilities uint64) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := StartSelf([]string{showVerb}, []*os.File{w}, nil, capabilities)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(p.PID(), nil, 0, nil); err != nil {
		t.Error(err)
	}
	return string(out)
}

// TestHelperRights: a helper has no more than was given to it, in no thread, and
// gets no more by an exec; this process keeps what it has.
func TestHelperRights(t *testing.T) {
	testenv.RequireRoot(t)
	t.Setenv("SPAWN_TEST_CANARY", "1")
	for _, keep := range []uint64{0, 1 << unix.CAP_SYS_ADMIN} {
		out := show(t, keep)
		for line := range strings.Lines(out) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			if strings.HasPrefix(name, "Cap") && value != fmt.Sprintf("%016x", keep) || name == "NoNewPrivs" && value != "1" {
				t.Errorf("%#x: %s", keep, line)
			}
		}
		if strings.Count(out, "CapEff") < 3 || !strings.Contains(out, "dumpable 0 ") || !strings.Contains(out, "environment []") {
			t.Errorf("%#x: %s", keep, out)
		}
	}
	if out := show(t, AllCapabilities); strings.Contains(out, "CapEff:\t0000000000000000") || strings.Contains(out, "NoNewPrivs:\t1") {
		t.Errorf("one that is to have all: %s", out)
	}
}

// runConfined waits in every way that a Go program can, and tries to do more.
func runConfined() int {
	ready := make(chan struct{})
	go func() { // a thread of its own, from before
		runtime.LockOSThread()
		close(ready)
		select {}
	}()
	<-ready
	if err := ConfineToWaiting(); err != nil {
		fmt.Println(err)
		return 1
	}
	files, err := os.ReadDir("/proc/self/task")
	fmt.Println("look at a folder:", errors.Is(err, unix.EPERM), len(files))
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	fmt.Println("make a socket:", errors.Is(err, unix.EPERM))
	fmt.Println("execute:", errors.Is(unix.Exec("/bin/true", []string{"true"}, nil), unix.EPERM))
	fmt.Println("signal:", errors.Is(unix.Kill(os.Getppid(), 0), unix.EPERM))
	other := make(chan error)
	for range 20 { // each a new thread
		go func() {
			runtime.LockOSThread()
			_, _, errno := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
			time.Sleep(time.Millisecond)
			other <- errno
		}()
	}
	for range 20 {
		if err := <-other; !errors.Is(err, unix.EPERM) {
			fmt.Println("another thread:", err)
		}
	}
	var waste [][]byte
	for range 200 {
		waste = append(waste, make([]byte, 1<<16))
	}
	runtime.GC()
	input, err := io.ReadAll(os.Stdin)
	fmt.Println(len(waste), "read:", string(input), err)
	n, err := unix.Poll([]unix.PollFd{{Fd: 0, Events: unix.POLLIN}}, 1)
	fmt.Println("poll:", n, err)
	return 0
}

// TestConfine: a process that is to wait can wait, in all its threads, and no more.
func TestConfine(t *testing.T) {
	out := asRole(t, "confined", "something")
	want := `look at a folder: true 0
make a socket: true
execute: true
signal: true
200 read: something <nil>
poll: 1 <nil>
`
	if out != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
}

// runTime is how long a run takes until it executes a sealed copy.
const runTime = 50 * time.Millisecond

func runSeal(argument string) int {
	pid, err := strconv.Atoi(argument)
	if !Sealed() {
		time.Sleep(runTime)
	}
	if err = errors.Join(err, Seal(pid, []byte("what was read"))); err != nil {
		fmt.Println(err)
		return 1
	}
	exe, err := os.Readlink("/proc/self/exe")
	input, _ := io.ReadAll(os.Stdin)
	fmt.Println(exe, err, string(input))
	fmt.Println("took", Took() >= runTime && Took() < time.Minute, Took() == 0)
	environ, err := os.ReadFile("/proc/self/environ")
	shown := strings.Contains(string(environ), roleVariable)
	err = errors.Join(err, SetUndumpable())
	environ, err2 := os.ReadFile("/proc/self/environ")
	fmt.Println("environment", shown, strings.Trim(string(environ), "\x00") == "", os.Getenv(roleVariable) != "", errors.Join(err, err2))
	// Could a process write to the program file after this one has ended?
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	fmt.Printf("seals %#x %v\n", seals, err)
	open, _ := os.ReadDir("/proc/self/fd")
	for _, e := range open {
		link, _ := os.Readlink("/proc/self/fd/" + e.Name())
		fmt.Println("file", e.Name(), link)
	}
	return 0
}

// TestSeal: where a container's processes may open all others, the program goes
// on as a sealed copy, with its input, and nothing more open.
func TestSeal(t *testing.T) {
	testenv.RequireRoot(t)
	for name, test := range map[string]struct {
		args   []string
		sealed bool
	}{
		"with CAP_SYS_PTRACE":    {[]string{"cat"}, true},
		"without CAP_SYS_PTRACE": {[]string{"setpriv", "--bounding-set", "-sys_ptrace", "cat"}, false},
	} {
		cmd := exec.Command(test.args[0], test.args[1:]...)
		end, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		testenv.WaitExecuted(t, cmd.Process.Pid)
		waitProgram(t, cmd.Process.Pid, "cat")
		out := asRole(t, "seal "+strconv.Itoa(cmd.Process.Pid), "what is there now")
		end.Close()
		_ = cmd.Wait()
		want := "what is there now\n"
		if test.sealed {
			want = "/memfd:autofs-restore-hook (deleted) <nil> what was read\n"
		}
		if !strings.Contains(out, want) || strings.Contains(out, "/memfd:") != test.sealed || strings.Contains(out, "seals 0xf <nil>") != test.sealed {
			t.Errorf("%s: %s", name, out)
		}
		if !strings.Contains(out, "environment true true true <nil>") {
			t.Errorf("%s: not wiped, or gone: %s", name, out)
		}
		if want := fmt.Sprintf("took %t %t\n", test.sealed, !test.sealed); !strings.Contains(out, want) {
			t.Errorf("%s: want %q: %s", name, want, out)
		}
		if n := strings.Count(out, " /memfd:"); test.sealed && n != 2 { // standard input, and what this test opens
			t.Errorf("%s: %d files in memory are open: %s", name, n, out)
		}
	}
	if out := asRole(t, "seal 4194305", "x"); !strings.Contains(out, " x\n") {
		t.Errorf("no such process: %s", out)
	}
}

// waitProgram waits for the exec of a program that another one starts.
func waitProgram(t *testing.T, pid int, name string) {
	t.Helper()
	for range 1000 {
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && filepath.Base(link) == name {
			return
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
	}
	t.Fatalf("process %d does not run %s", pid, name)
}
