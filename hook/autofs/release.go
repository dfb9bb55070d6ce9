//go:build linux

package autofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How far back from the newest request, of whatever mount, one is looked for
// that was never answered. Each costs 2 µs.
const maxPending = 1 << 14

// patience bounds how long the kernel may take to send a request of our own.
const patience = time.Second

// Release releases every process that waits on the mount, with ENOENT, and makes it
// catatonic. root must be a real descriptor; see [Reopen].
//
// [Catatonic] alone does that since Linux 6.6. Before (17fce12e7c0a; measured on
// 6.1) it takes their requests back but wakes no process that waits killably, as
// all do, and nothing else wakes them afterwards. So there each request
// is answered first. A process that comes between the two is left behind.
func Release(root *os.File) error {
	var err error
	if wakesTooFew() {
		err = failPending(root)
	}
	return errors.Join(err, Catatonic(root))
}

// wakesTooFew tells whether the kernel may be older than 6.6. One that has got
// the correction by its distributor loses nothing.
func wakesTooFew() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return true
	}
	var version [2]int // as in 6.1.0-50-amd64
	i := 0
	for _, c := range u.Release {
		switch {
		case c >= '0' && c <= '9':
			version[i] = version[i]*10 + int(c-'0')
		case c == '.' && i == 0:
			i = 1
		default:
			return version[0] < 6 || version[0] == 6 && version[1] < 6
		}
	}
	return true
}

// failPending answers all requests of the mount with ENOENT. Their tokens are
// not known, but they count up for all mounts together, and an unknown one is
// refused.
func failPending(root *os.File) error {
	token, err := CurrentToken()
	if err != nil {
		return err
	}
	for range maxPending {
		if token--; token == 0 {
			break
		}
		if err := fail(root, token); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// fail is Ready for what could not be mounted: the waiters get ENOENT.
func fail(root *os.File, token uint32) error {
	return ioctlError("AUTOFS_IOC_FAIL", ioctlValue(root, iocFail, uintptr(token)))
}

// CurrentToken learns the value of the counter that the kernel numbers requests
// with, one for all mounts of the machine (autofs_next_wait_queue in
// fs/autofs/waitq.c): it makes a request on a mount that no other process sees.
func CurrentToken() (uint32, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer read.Close()
	// The master is any other process group: ours would not be made to wait.
	master := unix.Getpid()
	if master == unix.Getpgrp() {
		master = unix.Getppid()
	}
	mount, err := Create(CreateOptions{PipeWriter: write, ProcessGroup: master, Type: Indirect, UID: -1, GID: -1})
	write.Close()
	if err != nil {
		return 0, err
	}
	root, err := Reopen(mount)
	if err != nil {
		mount.Close()
		return 0, err
	}
	defer root.Close()
	answered := make(chan struct{})
	go func() { // waits until the request is answered
		defer close(answered)
		defer mount.Close()
		if fd, err := unix.Openat(int(mount.Fd()), "token", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			unix.Close(fd)
		}
	}()
	b := make([]byte, PacketSize)
	err = read.SetReadDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = io.ReadAtLeast(read, b, packetMinSize)
	}
	if err != nil {
		return 0, fmt.Errorf("a request of the kernel to learn its number: %w", err)
	}
	token := binary.NativeEndian.Uint32(b[packetToken:])
	if err := fail(root, token); err != nil {
		return 0, err
	}
	<-answered
	return token, nil
}
