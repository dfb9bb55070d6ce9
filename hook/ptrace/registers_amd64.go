package ptrace

import "golang.org/x/sys/unix"

// systemCallInstruction makes a thread call the kernel.
var systemCallInstruction = []byte{0x0f, 0x05} // syscall

// Values of rax after an interrupted system call that the kernel restarts
// (include/linux/errno.h).
const (
	restartFirst = -514 // ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS
	restartLast  = -512
	restartBlock = -516 // ERESTART_RESTARTBLOCK
)

func stackPointer(r *unix.PtraceRegs) uint64 { return r.Rsp }

// systemCall returns registers that make a thread with the given ones call the kernel.
func systemCall(r unix.PtraceRegs, instruction, number uint64, args [3]uint64) unix.PtraceRegs {
	r.Rip, r.Rax, r.Orig_rax = instruction, number, ^uint64(0)
	r.Rdi, r.Rsi, r.Rdx = args[0], args[1], args[2]
	return r
}

// resumed returns the registers with which an interrupted thread continues. They restart
// its system call, which the kernel no longer does after an injected one.
func resumed(r unix.PtraceRegs, _ bool) unix.PtraceRegs {
	switch result := int64(r.Rax); {
	case int64(r.Orig_rax) < 0:
	case result >= restartFirst && result <= restartLast:
		r.Rip, r.Rax = r.Rip-2, r.Orig_rax
	case result == restartBlock:
		r.Rip, r.Rax = r.Rip-2, unix.SYS_RESTART_SYSCALL
	}
	r.Orig_rax = ^uint64(0)
	return r
}
