package master

import "golang.org/x/sys/unix"

// systemCallInstruction is what a thread that is in a system call has just
// executed, or is about to execute again.
var systemCallInstruction = []byte{0x01, 0x00, 0x00, 0xd4} // svc #0

// instructionAt are the addresses where the instruction may be.
func instructionAt(r *unix.PtraceRegs) []uint64 { return []uint64{r.Pc - 4, r.Pc} }

func stackPointer(r *unix.PtraceRegs) uint64 { return r.Sp }

// systemCall makes a thread that goes on with these registers call the kernel.
func systemCall(r unix.PtraceRegs, instruction, number uint64, args [3]uint64) unix.PtraceRegs {
	r.Pc, r.Regs[8] = instruction, number
	copy(r.Regs[:3], args[:])
	return r
}

// resumed are the registers with which an interrupted thread goes on: the kernel
// has already prepared them for starting its system call again
// (arch/arm64/kernel/signal.c, do_signal).
func resumed(r unix.PtraceRegs) unix.PtraceRegs { return r }
