package ptrace

import "golang.org/x/sys/unix"

// systemCallInstruction makes a thread call the kernel.
var systemCallInstruction = []byte{0x01, 0x00, 0x00, 0xd4} // svc #0

func stackPointer(r *unix.PtraceRegs) uint64 { return r.Sp }

// systemCall returns registers that make a thread with the given ones call the kernel.
func systemCall(r unix.PtraceRegs, instruction, number uint64, args [3]uint64) unix.PtraceRegs {
	r.Pc, r.Regs[8] = instruction, number
	copy(r.Regs[:3], args[:])
	return r
}

// resumed returns the registers with which an interrupted thread continues. The kernel
// has prepared them to repeat its system call; one that is to continue where it was
// interrupted gets the number of restart_syscall(2) after that, for the first stop only
// (arch/arm64/kernel/signal.c, do_signal).
func resumed(r unix.PtraceRegs, interrupted bool) unix.PtraceRegs {
	if interrupted {
		r.Regs[8] = unix.SYS_RESTART_SYSCALL
	}
	return r
}
