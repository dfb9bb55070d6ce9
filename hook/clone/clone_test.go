package clone

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// run has a copy carry out the steps, and ends and reaps it.
func run(t *testing.T, steps []Step) (pid int, verdict error) {
	t.Helper()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	pid, pidfd, err := Start(steps, pipe[1])
	unix.Close(pipe[1])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	verdict = ReadVerdict(pipe[0], steps)
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	for errors.Is(unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED, nil), unix.EINTR) {
	}
	return pid, verdict
}

// TestParentGone: a copy whose parent has ended before it could ask for a signal
// then, ends itself, and does nothing before.
func TestParentGone(t *testing.T) {
	var life, report [2]int
	if err := errors.Join(unix.Pipe2(life[:], unix.O_CLOEXEC), unix.Pipe2(report[:], unix.O_CLOEXEC)); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(report[0])
	unix.Close(life[0]) // nobody reads
	steps := []Step{{Name: "write", Number: unix.SYS_WRITE, Args: [5]uintptr{uintptr(report[1])}}}
	_, pidfd, err := start(steps, report[1], life)
	unix.Close(life[1])
	unix.Close(report[1])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := ReadVerdict(report[0], steps); !errors.Is(err, ErrNoVerdict) {
		t.Errorf("it went on: %v", err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED, nil); err != nil || info.Code != 1 { // CLD_EXITED
		t.Errorf("how it ended: %d, %v", info.Code, err)
	}
}

func TestStart(t *testing.T) {
	pid := Step{Name: "getpid", Number: unix.SYS_GETPID}
	number, err := run(t, []Step{pid, {Name: "getpgid of oneself", Number: unix.SYS_GETPGID}})
	if err != nil || number <= 0 {
		t.Errorf("process %d, %v", number, err)
	}
	bad := Step{Name: "close", Number: unix.SYS_CLOSE, Args: [5]uintptr{1 << 20}}
	if _, err := run(t, []Step{pid, bad, pid}); !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "close") {
		t.Errorf("a step that fails: %v", err)
	}
	if _, err := run(t, []Step{{Name: "exit", Number: unix.SYS_EXIT_GROUP}}); !errors.Is(err, ErrNoVerdict) {
		t.Errorf("an end without a word: %v", err)
	}
}
