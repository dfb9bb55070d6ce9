package ptrace

import "golang.org/x/sys/unix"

func setStack(r *unix.PtraceRegs, pointer uint64) { r.Sp = pointer }
