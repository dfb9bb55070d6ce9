package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// fakeVariable makes the test binary behave as a systemd does on SIGTERM: it
// writes a state to a memory file, executes itself and prints what it reads
// back. Its value says in which manner.
const fakeVariable = "TEST_FAKE_SYSTEMD"

const fakeState = header + "mnt-idle.automount\nstate=waiting\ndev-id=148\npipe-fd=0\n\n" + "mnt-other.automount\ndev-id=148\npipe-fd=1\n\n"

func init() {
	switch os.Getenv(fakeVariable) {
	case "":
		return
	case "executed":
		printState()
	default:
		fakeSystemd(os.Getenv(fakeVariable))
	}
	os.Exit(0)
}

// fakeSystemd runs in the main thread: that is the one that is traced.
func fakeSystemd(manner string) {
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, unix.SIGTERM)
	os.Stdout.WriteString("ready\n")
	for {
		<-terminate
		switch manner {
		case "refuses":
			continue
		case "ends":
			_ = unix.Kill(os.Getpid(), unix.SIGKILL) // os.Exit waits for the race detector
		case "executes without":
			execute(-1)
		}
		fd, err := unix.MemfdCreate("systemd-state", unix.MFD_ALLOW_SEALING)
		if err != nil {
			panic(err)
		}
		text := fakeState
		if manner == "writes rubbish" {
			text = "rubbish"
		}
		if _, err := unix.Write(fd, []byte(text)); err != nil {
			panic(err)
		}
		if manner == "seals" {
			other, _ := unix.MemfdCreate("other", unix.MFD_ALLOW_SEALING)
			const all = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
			for _, f := range []int{other, fd} { // another sealed file first
				if _, err := unix.FcntlInt(uintptr(f), unix.F_ADD_SEALS, all); err != nil {
					panic(err)
				}
			}
			unix.Close(other)
		}
		execute(fd)
	}
}

func execute(fd int) {
	env := []string{fakeVariable + "=executed", "FAKE_STATE=" + strconv.Itoa(fd)}
	panic(unix.Exec("/proc/self/exe", os.Args[:1], env))
}

func printState() {
	fd, err := strconv.Atoi(os.Getenv("FAKE_STATE"))
	if err != nil || fd < 0 {
		os.Stdout.WriteString("none")
		return
	}
	f := os.NewFile(uintptr(fd), "state")
	_, _ = f.Seek(0, io.SeekStart)
	_, _ = io.Copy(os.Stdout, f)
}

// startFake starts a fake systemd, and returns it with what it will print.
func startFake(t *testing.T, manner string) (*nsenter.Process, *exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{fakeVariable + "=" + manner}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // an automount's pipe
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); errors.Is(err, unix.ECHILD) {
			_ = cmd.Process.Release() // the tracer was told of its end
		}
	})
	reader := bufio.NewReader(out)
	if line, err := reader.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the fake systemd printed %q: %v", line, err)
	}
	p, err := nsenter.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, cmd, reader
}

func reexecuteOnThread(ctx context.Context, p *nsenter.Process, seals bool) (edit *StateEdit, err error) {
	testenv.OnThread(func() {
		var pipe uint64
		if pipe, err = master.PipeAt(p, 0); err == nil {
			edit, err = reexecute(ctx, p, ReexecuteOptions{Version: 252, Served: []ServedMount{{Path: "/mnt/idle", Pipe: pipe, Device: 1048576}}}, seals)
		}
	})
	return edit, err
}

func TestReexecute(t *testing.T) {
	testenv.RequireRoot(t)
	for _, test := range []struct {
		manner string
		seals  bool // as is believed
	}{{"seals", true}, {"does not seal", true}, {"does not seal", false}} {
		t.Run(fmt.Sprintf("%s, %v", test.manner, test.seals), func(t *testing.T) {
			p, _, out := startFake(t, test.manner)
			ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
			defer cancel()
			edit, err := reexecuteOnThread(ctx, p, test.seals)
			if err != nil {
				t.Fatal(err)
			}
			if len(edit.Units) != 2 || !edit.Units[0].Corrected() || edit.Units[0].OldDevice != 148 || edit.Units[1].Corrected() {
				t.Errorf("%+v", edit.Units)
			}
			got, err := io.ReadAll(out)
			if err != nil {
				t.Fatal(err)
			}
			if want := fakeState + told("mnt-idle.automount", 1048576); string(got) != want {
				t.Errorf("it read back\n%q\nwant\n%q", got, want)
			}
		})
	}
}

// TestReexecuteSealed: a systemd that seals its state unexpectedly gets no correction and runs on.
func TestReexecuteSealed(t *testing.T) {
	testenv.RequireRoot(t)
	p, _, out := startFake(t, "seals")
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	if _, err := reexecuteOnThread(ctx, p, false); !errors.Is(err, errSealed) {
		t.Errorf("error %v, want %v", err, errSealed)
	}
	if got, err := io.ReadAll(out); err != nil || string(got) != fakeState {
		t.Errorf("it read back\n%q\nwant\n%q (%v)", got, fakeState, err)
	}
}

// TestReexecuteFails wants an error, and an untraced process.
func TestReexecuteFails(t *testing.T) {
	testenv.RequireRoot(t)
	for manner, reason := range map[string]string{
		"refuses":          "wait for its next stop",
		"executes without": "no file /memfd:systemd-state",
		"writes rubbish":   "no section of a unit",
		"ends":             "it ended while it was traced",
	} {
		t.Run(manner, func(t *testing.T) {
			p, cmd, out := startFake(t, manner)
			limit := testenv.Patience
			if manner == "refuses" {
				limit = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			_, err := reexecuteOnThread(ctx, p, true)
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("error %v, want %q", err, reason)
			}
			if manner == "refuses" {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
				}
				testenv.CheckUntraced(t, p.PID())
				if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
					t.Error(err)
				}
			}
			got, _ := io.ReadAll(out)
			want := map[string]string{"executes without": "none", "writes rubbish": "rubbish"}[manner]
			if string(got) != want {
				t.Errorf("it printed %q afterwards, want %q", got, want)
			}
		})
	}
}
