package spawn

import "golang.org/x/sys/unix"

const (
	auditArchitecture = unix.AUDIT_ARCH_AARCH64
	sysPoll           = unix.SYS_PPOLL // there is no older one
)
