package ptrace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Injector makes a stopped process call the kernel.
type Injector struct {
	tracer      *Tracer
	memory      *os.File
	registers   unix.PtraceRegs
	instruction uint64
	interrupted bool // the thread is to continue its call with restart_syscall(2); arm64 only
}

// Inject stops a process, so that it can be made to call the kernel. The calling thread
// is the tracer: the injector is used and closed on it.
func Inject(ctx context.Context, p *nsenter.Process) (*Injector, error) {
	memory, err := openMemory(p)
	if err != nil {
		return nil, err
	}
	t, err := Seize(ctx, p)
	if err != nil {
		memory.Close()
		return nil, err
	}
	in := &Injector{tracer: t, memory: memory}
	if err := in.save(); err != nil {
		memory.Close()
		return nil, errors.Join(err, t.Release(ctx))
	}
	return in, nil
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

// save saves the registers of the process. It must be inside a system call: it has just
// executed a system call instruction then, or executes it again next, and no computation is
// disturbed.
func (in *Injector) save() error {
	if err := in.transfer(unix.PTRACE_GETREGSET, &in.registers); err != nil {
		return err
	}
	code, next := make([]byte, len(systemCallInstruction)), in.registers.PC()
	for _, at := range []uint64{next - uint64(len(code)), next} {
		if _, err := in.memory.ReadAt(code, int64(at)); err == nil && bytes.Equal(code, systemCallInstruction) {
			in.instruction = at
			return nil
		}
	}
	return errors.New("it is not in a system call")
}

// redZone is how many bytes a function may use below its stack pointer (x86-64 psABI).
const redZone = 128

// Process is the stopped process.
func (in *Injector) Process() *nsenter.Process { return in.tracer.Process }

// Push writes data below the stack of the process and returns its address.
func (in *Injector) Push(data []byte) (address uint64, err error) {
	address = (stackPointer(&in.registers) - redZone - uint64(len(data))) &^ 15
	_, err = in.memory.WriteAt(data, int64(address))
	return address, err
}

// Read reads the process's memory.
func (in *Injector) Read(address uint64, data []byte) error {
	_, err := in.memory.ReadAt(data, int64(address))
	return err
}

// Call makes the process call the kernel.
func (in *Injector) Call(ctx context.Context, number uint64, args [3]uint64) error {
	registers := systemCall(in.registers, in.instruction, number, args)
	if err := in.transfer(unix.PTRACE_SETREGSET, &registers); err != nil {
		return err
	}
	if err := in.step(ctx); err != nil {
		return err
	}
	got, _, entered := in.tracer.Entry()
	if entered && got == unix.SYS_RESTART_SYSCALL {
		// arm64 only: the kernel wanted to continue the interrupted call, and
		// has replaced the number.
		in.interrupted, got = true, number
		if err := in.setNumber(number); err != nil {
			return err
		}
	}
	if !entered || got != number {
		return errors.New("it did not make the injected system call")
	}
	if err := in.step(ctx); err != nil {
		return err
	}
	return in.tracer.result()
}

// step runs the process to the next entry or exit of a system call.
func (in *Injector) step(ctx context.Context) error {
	if err := in.tracer.ToSystemCall(0); err != nil {
		return err
	}
	status, err := in.tracer.Wait(ctx)
	if err == nil && SignalOf(status) != 0 {
		err = fmt.Errorf("signal %v arrived first", SignalOf(status))
	}
	return err
}

// Close restores the registers and detaches from the process.
func (in *Injector) Close(ctx context.Context) error {
	defer in.memory.Close()
	registers := resumed(in.registers, in.interrupted)
	err := in.tracer.stop(ctx)
	if err == nil {
		err = in.transfer(unix.PTRACE_SETREGSET, &registers)
	}
	return errors.Join(err, in.tracer.Release(ctx))
}

// transfer reads or writes the general registers.
func (in *Injector) transfer(request int, registers *unix.PtraceRegs) error {
	const general = 1 // NT_PRSTATUS
	return in.transferSet(request, general, unsafe.Pointer(registers), unsafe.Sizeof(*registers))
}

// setNumber replaces the number of the system call that the process has just entered, on
// arm64.
func (in *Injector) setNumber(number uint64) error {
	const numberOfCall = 0x404 // NT_ARM_SYSTEM_CALL
	value := int32(number)
	return in.transferSet(unix.PTRACE_SETREGSET, numberOfCall, unsafe.Pointer(&value), unsafe.Sizeof(value))
}

func (in *Injector) transferSet(request int, set uintptr, data unsafe.Pointer, size uintptr) error {
	vector := unix.Iovec{Base: (*byte)(data)}
	vector.SetLen(int(size))
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(in.tracer.Process.PID()), set,
		uintptr(unsafe.Pointer(&vector)), 0, 0); errno != 0 {
		return os.NewSyscallError("ptrace", errno)
	}
	return nil
}
