package sys

import (
	"fmt"
	"math"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PidfdOpen opens a pidfd of the process with the given number.
func PidfdOpen(pid int) (*os.File, error) {
	fd, err := Retry(func() (int, error) { return unix.PidfdOpen(pid, 0) })
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", pid)), nil
}

// PidfdSignal sends a signal to the process of a pidfd.
func PidfdSignal(pidfd *os.File, signal unix.Signal) error {
	err := OnFile(pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, signal, nil, 0) })
	return os.NewSyscallError("pidfd_send_signal", err)
}

// PidfdGetfd copies a descriptor of the process of a pidfd (Linux 5.6). The copy shares
// the open file with that process. It is a bare number because os.NewFile adds a
// non-blocking file to the poller, which not every file of another process tolerates.
func PidfdGetfd(pidfd *os.File, target int) (fd int, err error) {
	fd, err = fromFile(pidfd, func(pidfd int) (int, error) { return unix.PidfdGetfd(pidfd, target, 0) })
	return fd, os.NewSyscallError("pidfd_getfd", err)
}

// Poll waits until one of the files is ready, and at most for the given time; zero only
// looks. It returns how many are ready.
func Poll(fds []unix.PollFd, timeout time.Duration) (int, error) {
	end := time.Now().Add(timeout)
	n, err := Retry(func() (int, error) {
		left := max(time.Until(end)+time.Millisecond-1, 0).Milliseconds()
		return unix.Poll(fds, int(min(left, math.MaxInt32)))
	})
	return n, os.NewSyscallError("poll", err)
}

// Capset holds the arguments of capset(2).
type Capset struct {
	Header unix.CapUserHeader
	Data   [2]unix.CapUserData
}

// NewCapset makes the arguments that leave a thread the given capabilities, one bit for
// each, as permitted and effective, and none as inheritable.
func NewCapset(capabilities uint64) *Capset {
	c := &Capset{Header: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}}
	for i := range c.Data {
		half := uint32(capabilities >> (32 * i))
		c.Data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	return c
}

// Set sets the capabilities of the calling thread.
func (c *Capset) Set() error {
	_, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&c.Header)), uintptr(unsafe.Pointer(&c.Data)), 0)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}
