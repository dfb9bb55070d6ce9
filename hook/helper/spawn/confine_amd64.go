package spawn

import "golang.org/x/sys/unix"

const (
	auditArchitecture = unix.AUDIT_ARCH_X86_64
	sysPoll           = unix.SYS_POLL
)
