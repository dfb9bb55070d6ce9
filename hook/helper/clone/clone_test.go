package clone

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// run makes a copy run the steps, and kills and reaps it.
func run(t *testing.T, limit time.Duration, steps []Step) (pid int, verdict error) {
	t.Helper()
	read, report, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	pid, pidfd, err := Start(steps, int(report.Fd()))
	report.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	verdict = ReadVerdict(read, steps, limit)
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	for errors.Is(unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED, nil), unix.EINTR) {
	}
	return pid, verdict
}

// TestParentGone: a copy whose parent ended before the copy requested its death signal
// exits without running a step.
func TestParentGone(t *testing.T) {
	read, report, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	var alive [2]int
	if err := unix.Pipe2(alive[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	unix.Close(alive[0]) // as if the parent had ended
	steps := []Step{{Name: "write", Number: unix.SYS_WRITE, Args: [5]uintptr{report.Fd()}}}
	_, pidfd, err := start(steps, int(report.Fd()), alive)
	unix.Close(alive[1])
	report.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := ReadVerdict(read, steps, testenv.Patience); !errors.Is(err, ErrNoVerdict) {
		t.Errorf("it ran its steps: %v", err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED, nil); err != nil || info.Code != 1 { // CLD_EXITED
		t.Errorf("how it ended: %d, %v", info.Code, err)
	}
}

func TestStart(t *testing.T) {
	pid := Step{Name: "getpid", Number: unix.SYS_GETPID}
	number, err := run(t, testenv.Patience, []Step{pid, {Name: "getpgid of oneself", Number: unix.SYS_GETPGID}})
	if err != nil || number <= 0 {
		t.Errorf("process %d, %v", number, err)
	}
	bad := Step{Name: "close", Number: unix.SYS_CLOSE, Args: [5]uintptr{1 << 20}}
	if _, err := run(t, testenv.Patience, []Step{pid, bad, pid}); !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "close") {
		t.Errorf("a step that fails: %v", err)
	}
	if _, err := run(t, testenv.Patience, []Step{{Name: "exit", Number: unix.SYS_EXIT_GROUP}}); !errors.Is(err, ErrNoVerdict) {
		t.Errorf("an exit without a verdict: %v", err)
	}
	if _, err := run(t, time.Millisecond, []Step{{Name: "ppoll", Number: unix.SYS_PPOLL}}); !errors.Is(err, ErrLate) {
		t.Errorf("a copy that does not go on: %v", err)
	}
}
