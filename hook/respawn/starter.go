package respawn

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/clone"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Verb is the hidden command with which the sealed copy of the program runs.
const Verb = "start-twin"

// The starter's descriptors, after standard input, output and error: itself, the
// twin as text, the answers, the gate, and then the twin's files.
const (
	starterProgram = 3 + iota
	starterTwin
	starterAnswers
	starterGate
	starterFiles
)

// The lines that a starter answers with.
const (
	answerReady = "ready "
	answerEnded = "ended "
)

// startTime bounds how long a twin may take to its exec.
const startTime = 3 * time.Second

// Run is what a starter does: it starts a twin, stops it after its exec, says so
// and waits for the gate: a number lets the twin run, the end of the file ends
// it. Then it waits for the twin's own end, which it tells too.
func Run() error {
	answers := os.NewFile(starterAnswers, "answers")
	done := make(chan error, 1)
	nsenter.GoThread(func() { done <- runStarter(answers) }) // the tracer, and the parent
	err := <-done
	if err != nil {
		_, _ = fmt.Fprintln(answers, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return err
}

func runStarter(answers io.Writer) error {
	_ = unix.CloseRange(starterProgram, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	text, err := io.ReadAll(io.NewSectionReader(os.NewFile(starterTwin, "twin"), 0, 8*maxFile))
	if err != nil {
		return err
	}
	var t Twin
	if err := json.Unmarshal(text, &t); err != nil {
		return fmt.Errorf("what a new process is to have: %w", err)
	}
	pid, err := t.start()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(answers, answerReady, pid); err != nil {
		return err // nobody is there; the twin ends with us
	}
	var dead [8]byte
	if _, err := io.ReadFull(os.NewFile(starterGate, "gate"), dead[:]); err != nil {
		return err
	}
	if number := binary.NativeEndian.Uint64(dead[:]); number > 0 {
		t.occupy(int(number))
	}
	if err := ptrace(unix.PTRACE_DETACH, pid, 0); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		switch _, err := unix.Wait4(pid, &status, 0, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("wait4", err)
		default:
			_, err := fmt.Fprintln(answers, answerEnded, endOf(status))
			return err
		}
	}
}

// start starts the twin and returns its number when it is stopped after its
// exec.
func (t *Twin) start() (int, error) {
	group := 0
	if t.Grouped {
		group = file(fileSpaces + len(t.Spaces))
	}
	var gate, verdict [2]int
	if err := errors.Join(unix.Pipe2(gate[:], unix.O_CLOEXEC), unix.Pipe2(verdict[:], unix.O_CLOEXEC)); err != nil {
		return 0, os.NewSyscallError("pipe2", err)
	}
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	s, err := t.write(gate[0], proc)
	if err != nil {
		return 0, err
	}
	for i, kind := range t.Spaces {
		if kind == "pid" {
			if err := unix.Setns(file(fileSpaces+i), unix.CLONE_NEWPID); err != nil {
				return 0, os.NewSyscallError("setns", err)
			}
		}
	}
	pid, _, err := clone.Start(s.steps, verdict[1], clone.Place{Cgroup: group})
	s.done()
	if err != nil {
		return 0, err
	}
	unix.Close(verdict[1])
	if err := t.admit(pid, gate[1]); err != nil {
		return 0, err
	}
	verdictErr := clone.ReadVerdict(verdict[0], s.steps)
	if verdictErr != nil && !errors.Is(verdictErr, clone.ErrNoVerdict) {
		return 0, fmt.Errorf("%w: %w", ErrNotPossible, verdictErr)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	status, err := waitStop(ctx, pid)
	if err != nil {
		return 0, fmt.Errorf("%w: the new process: %w", ErrNotPossible, err)
	}
	if status>>8 != unix.WaitStatus(unix.SIGTRAP)|unix.PTRACE_EVENT_EXEC<<8 {
		return 0, fmt.Errorf("the new process stopped before its exec (%#x)", uint32(status))
	}
	return pid, nil
}

// admit does from outside what a process cannot do itself, and lets it go on.
func (t *Twin) admit(pid, gate int) error {
	if err := ptrace(unix.PTRACE_SEIZE, pid, unix.PTRACE_O_EXITKILL|unix.PTRACE_O_TRACEEXEC); err != nil {
		return err
	}
	if err := cgroup.Move(pid, t.Cgroups); err != nil {
		return fmt.Errorf("move process %d into the control groups of the old one: %w", pid, err)
	}
	p, err := nsenter.Open(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	have, err := p.ReadFile("oom_score_adj", 1<<10)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(have)) != t.OOM {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(t.OOM)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if _, err := unix.Write(gate, []byte{0}); err != nil {
		return os.NewSyscallError("write", err)
	}
	return nil
}

// file is the starter's descriptor of one of the twin's files.
func file(index int) int { return starterFiles + index }

// reapTime bounds how long the old process's number may still be its own.
const reapTime = 50 * time.Millisecond

// occupy has a process that does nothing take a number in the twin's pid
// namespace, until the starter ends. It is in the twin's other namespaces too,
// and may do nothing there. Whose number is not free in time, because nobody has
// waited for its process, is not likely to be given to another one.
func (t *Twin) occupy(number int) {
	s := &script{}
	s.guard()
	s.enter(t)
	s.add("prctl(PR_SET_NO_NEW_PRIVS)", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	s.capabilities(0, 0)
	for end := time.Now().Add(reapTime); ; time.Sleep(time.Millisecond) {
		var verdict [2]int
		if unix.Pipe2(verdict[:], unix.O_CLOEXEC) != nil {
			return
		}
		_, _, err := clone.Start(s.steps, verdict[1], clone.Place{Number: number})
		unix.Close(verdict[1])
		if err == nil {
			_ = clone.ReadVerdict(verdict[0], s.steps)
		}
		unix.Close(verdict[0])
		if !errors.Is(err, unix.EEXIST) || time.Now().After(end) {
			s.done()
			return
		}
	}
}
