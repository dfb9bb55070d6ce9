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

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// maxPending bounds the search for unanswered requests: how many tokens below the newest
// one, of all mounts, are tried. Each takes 2 µs.
const maxPending = 1 << 14

// requestTime bounds how long the kernel may take to send a request.
const requestTime = time.Second

// Release releases all processes that wait on the mount, with ENOENT, and makes it
// catatonic. root must not be an O_PATH descriptor; see [Reopen].
//
// [Catatonic] alone does that since Linux 6.6 (17fce12e7c0a). Before (measured on 6.1) it
// drops their requests without waking them, because they wait killably, and nothing wakes
// them afterwards. So on older kernels Release answers the requests first; a process that
// arrives between the two steps is not released.
func Release(root *os.File) error {
	var err error
	if catatonicSleeps() {
		err = failPending(root)
	}
	return errors.Join(err, Catatonic(root))
}

// catatonicSleeps reports whether the kernel may be older than 6.6. A kernel with a
// backport of the fix only takes longer.
func catatonicSleeps() bool {
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

// failPending answers all requests of the mount with ENOENT. Their tokens are unknown, but
// one counter numbers the requests of all mounts, and an unknown token has no effect.
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

// fail answers a request with ENOENT.
func fail(root *os.File, token uint32) error {
	return ioctlError("AUTOFS_IOC_FAIL", ioctlValue(root, iocFail, uintptr(token)))
}

// CurrentToken returns the current value of the counter that numbers the requests of all
// mounts of the machine (autofs_next_wait_queue in fs/autofs/waitq.c). It makes a request
// on a mount that no other process sees.
func CurrentToken() (uint32, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer read.Close()
	// The master must be another process group: processes of its own do not wait.
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
		if f, err := sys.OpenAt(mount, "token", unix.O_RDONLY); err == nil {
			f.Close()
		}
	}()
	b := make([]byte, PacketSize)
	err = read.SetReadDeadline(time.Now().Add(requestTime))
	if err == nil {
		_, err = io.ReadAtLeast(read, b, packetMinSize)
	}
	if err != nil {
		return 0, fmt.Errorf("request for the current token: %w", err)
	}
	token := binary.NativeEndian.Uint32(b[packetToken:])
	if err := fail(root, token); err != nil {
		return 0, err
	}
	<-answered
	return token, nil
}
