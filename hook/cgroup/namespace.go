package cgroup

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// HasOwnNamespace reports whether a process is in another cgroup namespace than this one.
func HasOwnNamespace(p *nsenter.Process) (bool, error) {
	its, err := p.Namespace("cgroup")
	if err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/cgroup", &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: "/proc/self/ns/cgroup", Err: err}
	}
	return its != nsenter.NamespaceID{Device: st.Dev, Inode: st.Ino}, nil
}
