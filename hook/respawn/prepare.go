package respawn

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Prepared is a twin that has executed its program and is stopped before the
// first instruction.
type Prepared struct {
	starter *os.Process
	answers *os.File
	gate    *os.File
	process *nsenter.Process
}

// Prepare starts a twin, stopped, and compares it with what was captured:
// ErrDiffers or ErrNotPossible mean that there is no twin of it, and nothing is
// left of the attempt. The files stay the caller's.
func Prepare(ctx context.Context, t *Twin, files []*os.File) (*Prepared, error) {
	p, err := prepare(ctx, t, files)
	if err != nil {
		return nil, fmt.Errorf("start a process like the old one: %w", err)
	}
	return p, nil
}

func prepare(ctx context.Context, t *Twin, files []*os.File) (*Prepared, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	description, err := inMemory("twin", text)
	if err != nil {
		return nil, err
	}
	defer description.Close()
	program, err := spawn.SealedCopy()
	if err != nil {
		return nil, err
	}
	defer program.Close()
	answers, toUs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer toUs.Close()
	theirGate, gate, err := os.Pipe()
	if err != nil {
		answers.Close()
		return nil, err
	}
	defer theirGate.Close()
	p := &Prepared{answers: answers, gate: gate}
	p.starter, err = spawn.Program(fmt.Sprintf("/proc/self/fd/%d", starterProgram), []string{Verb},
		append([]*os.File{program, description, toUs, theirGate}, files...), &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		answers.Close()
		gate.Close()
		return nil, err
	}
	toUs.Close() // so that its end is seen
	if err := p.ready(ctx, t); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// ready waits for the twin and compares it.
func (p *Prepared) ready(ctx context.Context, t *Twin) error {
	pid, err := p.answer(ctx, answerReady)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	if p.process, err = nsenter.Open(number); err != nil {
		return err
	}
	have, err := traitsOf(p.process)
	if err != nil {
		return err
	}
	return compare(t.Traits, have)
}

// maxAnswer bounds a starter's answer, in bytes.
const maxAnswer = 4096

// answer waits for the starter's next line, and returns what follows the word.
func (p *Prepared) answer(ctx context.Context, word string) (string, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(startTime)
	}
	if err := p.answers.SetReadDeadline(deadline); err != nil {
		return "", err
	}
	var line []byte
	var b [1]byte
	for len(line) < maxAnswer {
		if _, err := io.ReadFull(p.answers, b[:]); err != nil {
			return "", fmt.Errorf("the process that starts it: %w", err)
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	text, ok := strings.CutPrefix(string(line), word)
	if !ok {
		return "", fmt.Errorf("%w: %s", ErrNotPossible, line)
	}
	return strings.TrimSpace(text), nil
}

// Process is the twin.
func (p *Prepared) Process() *nsenter.Process { return p.process }

// Go lets the twin run. dead is the number in its pid namespace that no process
// may get until Close, 0 for none: that of the old process, which should have
// ended by now.
func (p *Prepared) Go(dead int) error {
	_, err := p.gate.Write(binary.NativeEndian.AppendUint64(nil, uint64(dead)))
	return err
}

// WaitDaemon waits until a twin that runs, and makes a daemon of itself, has
// done so: the process that was started ends with status 0.
func (p *Prepared) WaitDaemon(ctx context.Context) error {
	end, err := p.answer(ctx, answerEnded)
	if err == nil && end != endOf(0) {
		err = fmt.Errorf("it ended at once: %s", end)
	}
	return err
}

// Close lets go of a twin that runs, and ends one that does not.
func (p *Prepared) Close() {
	p.gate.Close()
	p.answers.Close()
	_ = p.starter.Kill() // a twin that was not let go ends with its tracer
	_, _ = p.starter.Wait()
	if p.process != nil {
		p.process.Close()
	}
}

func memory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// inMemory makes a file of data that has no name.
func inMemory(name string, data []byte) (*os.File, error) {
	f, err := memory(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
