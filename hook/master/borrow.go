package master

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Root names an autofs mount that is to be opened.
type Root struct {
	Path   string
	Device uint64 // st_dev
}

// stopTime bounds how long a daemon is stopped.
const stopTime = 2 * time.Second

// OpenRoots opens mounts of an automount daemon that processes wait on. Only their master
// can open such mounts, so the daemon itself opens them, by system calls injected with
// ptrace(2), and the descriptors are copied with pidfd_getfd(2). The daemon is only
// paused; still, use it only for a daemon whose mounts are stale. Mounts that it could
// not open are nil in the list; the errors are joined.
func OpenRoots(ctx context.Context, daemon *owner.Member, list []Root) ([]*os.File, error) {
	if err := daemon.Check(); err != nil {
		return make([]*os.File, len(list)), fmt.Errorf("open mounts through process %d: %w", daemon.PID(), err)
	}
	return openViaMaster(ctx, daemon.Process, list)
}

func openViaMaster(ctx context.Context, daemon *nsenter.Process, list []Root) ([]*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTime, fmt.Errorf("not finished within %s", stopTime))
	defer cancel()
	type result struct {
		files []*os.File
		err   error
	}
	done := make(chan result, 1)
	nsenter.GoThread(func() { // the tracer is a thread, not a process (ptrace(2))
		files, err := openRoots(ctx, daemon, list)
		done <- result{files, err}
	})
	r := <-done
	if r.err != nil {
		r.err = fmt.Errorf("open mounts through process %d: %w", daemon.PID(), r.err)
	}
	return r.files, r.err
}

func openRoots(ctx context.Context, daemon *nsenter.Process, list []Root) ([]*os.File, error) {
	files := make([]*os.File, len(list))
	control, err := controlOf(daemon)
	if err != nil {
		return files, err
	}
	memory, err := openMemory(daemon)
	if err != nil {
		return files, err
	}
	defer memory.Close()
	t, err := seize(ctx, daemon)
	if err != nil {
		return files, err
	}
	b := &injector{tracer: t, memory: memory}
	if err := b.save(); err != nil {
		return files, errors.Join(err, t.release(ctx))
	}
	var errs []error
	for i, root := range list {
		files[i], err = b.open(ctx, control, root)
		errs = append(errs, err)
	}
	return files, errors.Join(append(errs, b.restore(ctx))...)
}

// openMemory opens the process's memory for reading and writing.
func openMemory(p *nsenter.Process) (*os.File, error) {
	f, err := os.OpenFile("/proc/"+strconv.Itoa(p.PID())+"/mem", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := p.Alive(); err != nil { // another process may have its number
		f.Close()
		return nil, err
	}
	return f, nil
}

// controlOf returns the descriptor with which the process has /dev/autofs open.
func controlOf(p *nsenter.Process) (int, error) {
	names, err := p.ReadDirNames("fd")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		f, err := p.OpenPath("fd/" + strconv.Itoa(fd))
		if err != nil {
			continue
		}
		st, err := sys.Stat(f)
		f.Close()
		if err == nil && autofs.IsControl(&st) {
			return fd, nil
		}
	}
	return 0, errors.New("it does not have " + autofs.ControlPath + " open")
}

// injector makes a stopped process call the kernel.
type injector struct {
	tracer      *tracer
	memory      *os.File
	registers   unix.PtraceRegs
	instruction uint64
}

// save saves the registers of the process. It must be inside a system call: there is a
// system call instruction then, and no computation is disturbed.
func (b *injector) save() error {
	if err := b.transfer(unix.PTRACE_GETREGSET, &b.registers); err != nil {
		return err
	}
	for _, at := range instructionAt(&b.registers) {
		code := make([]byte, len(systemCallInstruction))
		if _, err := b.memory.ReadAt(code, int64(at)); err == nil && bytes.Equal(code, systemCallInstruction) {
			b.instruction = at
			return nil
		}
	}
	return errors.New("it is not in a system call")
}

// redZone is how many bytes a function may use below its stack pointer (x86-64 psABI).
const redZone = 128

// open makes the process open a mount, copies the descriptor and closes the original.
func (b *injector) open(ctx context.Context, control int, root Root) (*os.File, error) {
	number, argument, err := autofs.OpenRequest(root.Path, root.Device)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", root.Path, err)
	}
	at := (stackPointer(&b.registers) - redZone - uint64(len(argument))) &^ 15
	if _, err := b.memory.WriteAt(argument, int64(at)); err != nil {
		return nil, err
	}
	if err := b.call(ctx, unix.SYS_IOCTL, [3]uint64{uint64(control), uint64(number), at}); err != nil {
		return nil, fmt.Errorf("%q: %w", root.Path, os.NewSyscallError("ioctl AUTOFS_DEV_IOCTL_OPENMOUNT", err))
	}
	if _, err := b.memory.ReadAt(argument, int64(at)); err != nil {
		return nil, err
	}
	theirs := autofs.OpenedFile(argument)
	fd, err := sys.PidfdGetfd(b.tracer.process.Pidfd(), theirs)
	err = errors.Join(err, b.call(ctx, unix.SYS_CLOSE, [3]uint64{uint64(theirs)}))
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), root.Path)
	if device, err := autofs.Device(f); err != nil || device != root.Device {
		f.Close()
		return nil, fmt.Errorf("%q: another mount was opened: %w", root.Path, errors.Join(err, unix.ESTALE))
	}
	return f, nil
}

// call makes the process call the kernel.
func (b *injector) call(ctx context.Context, number uint64, args [3]uint64) error {
	registers := systemCall(b.registers, b.instruction, number, args)
	if err := b.transfer(unix.PTRACE_SETREGSET, &registers); err != nil {
		return err
	}
	if err := b.step(ctx); err != nil {
		return err
	}
	if got, _, ok := b.tracer.entry(); !ok || got != number {
		return errors.New("it did not make the injected system call")
	}
	if err := b.step(ctx); err != nil {
		return err
	}
	return b.tracer.result()
}

// step runs the process to the next entry or exit of a system call.
func (b *injector) step(ctx context.Context) error {
	if err := b.tracer.toSystemCall(0); err != nil {
		return err
	}
	status, err := b.tracer.wait(ctx)
	if err == nil && signalOf(status) != 0 {
		err = fmt.Errorf("signal %v arrived first", signalOf(status))
	}
	return err
}

// restore restores the registers and detaches from the process.
func (b *injector) restore(ctx context.Context) error {
	registers := resumed(b.registers)
	err := b.tracer.stop(ctx)
	if err == nil {
		err = b.transfer(unix.PTRACE_SETREGSET, &registers)
	}
	return errors.Join(err, b.tracer.release(ctx))
}

// transfer reads or writes the general registers.
func (b *injector) transfer(request int, registers *unix.PtraceRegs) error {
	const general = 1 // NT_PRSTATUS
	vector := unix.Iovec{Base: (*byte)(unsafe.Pointer(registers))}
	vector.SetLen(int(unsafe.Sizeof(*registers)))
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(b.tracer.process.PID()), general,
		uintptr(unsafe.Pointer(&vector)), 0, 0); errno != 0 {
		return os.NewSyscallError("ptrace", errno)
	}
	return nil
}
